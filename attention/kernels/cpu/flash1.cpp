#include "attention/kernels/cpu/flash1.h"

#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/support.h"
#include "attention/kernels/cpu/tile_ops.h"

namespace annulus::attn::cpu {

namespace {

/// O, l and m of every head in forward; backward keeps dQ in the output.
std::int64_t materialized_bytes(const AttendGeometry& g, bool backward) {
  if (backward) return 0;
  return g.batch * g.heads * flash1_state_floats(g) * static_cast<std::int64_t>(sizeof(float));
}

std::int64_t workspace_bytes(const AttendGeometry& g, bool backward, int threads) {
  const std::int64_t share = backward ? flash1_backward_bytes(g) : flash1_forward_bytes(g);
  return Workspace::bytes(backward ? 0 : g.batch * g.heads * flash1_state_floats(g), share,
                          threads);
}

constexpr Kernel kFlash1{.name = "flash1",
                         .backend = "cpu",
                         .tile_q = kRows,
                         .tile_k = kKeys,
                         .refuses = refuses,
                         .workspace_bytes = workspace_bytes,
                         .materialized_bytes = materialized_bytes,
                         .forward = flash1_forward,
                         .backward = flash1_backward};

}  // namespace

const Kernel& flash1_kernel() { return kFlash1; }

}  // namespace annulus::attn::cpu
