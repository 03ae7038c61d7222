#!/bin/bash
# Second call of a session: the Hopper kernels on one GPU, under 10 minutes. Before it: one.sh.
# What is predicted: docs/notes/07-hopper-forward.md, 08-hopper-backward.md. Their order there: numbers, then the
# tunings of the forward side by side, then forward and backward beside cuDNN and FA2 in one process.
. "$(dirname "$0")/common.sh"

if [ "$cpu" = 1 ]; then
  step "first run" 30 bash "$repo/tests/gpu/hopper_first_run.sh" ./kernels_gpu correct
  step "tunings" 30 bash "$repo/tests/gpu/hopper_variants.sh" ./hopper_variants_gpu 20
  step "backward's tunings" 30 bash "$repo/tests/gpu/hopper_variants.sh" ./hopper_backward_variants_gpu 20
  finish
  exit
fi

step "first run" 200 bash "$repo/tests/gpu/hopper_first_run.sh" ./kernels_gpu correct
step "tunings" 150 bash "$repo/tests/gpu/hopper_variants.sh" ./hopper_variants_gpu 120
step "backward's tunings" 150 bash "$repo/tests/gpu/hopper_variants.sh" ./hopper_backward_variants_gpu 60
shapes=(8,2048,16,16,128 4,4096,16,16,128 2,8192,16,16,128 1,16384,16,16,128 1,16384,32,8,128 2,8192,16,16,64)
step "forward, cuDNN beside" 90 python3 interleave.py ./libannulus.so --kernel hopper --pass forward --shapes "${shapes[@]}" --repeats 15
step "backward, cuDNN beside" 90 python3 interleave.py ./libannulus.so --kernel hopper --pass backward --shapes "${shapes[@]}" --repeats 15
step "memcheck" 90 bash "$repo/tests/gpu/sanitize.sh" memcheck . hopper
finish
cat "$out/session.log" | grep -A40 -E "^### (tunings|forward|backward)" | cut -c1-150 | head -150
