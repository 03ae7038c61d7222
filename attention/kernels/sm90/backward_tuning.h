#pragma once

// What of the backward is chosen when it is compiled, as tuning.h has it for the forward.
// hopper_backward.cpp launches default_backward_tuning alone; the others are compiled into tests
// (tests/support/hopper_backward_candidates.h), to be timed side by side.
namespace annulus::attn::sm90 {

struct BackwardTuning {
  bool adds = true;           ///< else dQ is left out, to learn what it costs: it is wrong then
  int stages = 2;             ///< of Q
  int dout_stages = 2;        ///< of dO, at most as many
  int loader_registers = 40;  ///< of a thread
  int consumer_registers = 232;
  bool traced = false;  ///< block 0 says how long phases take (trace.cuh)
};

constexpr BackwardTuning default_backward_tuning(int head_dim, int head_dim_v) {
  if (head_dim == 192) {
    return {.dout_stages = head_dim_v == 128 ? 2 : 1,
            .loader_registers = 32,
            .consumer_registers = 160};
  }
  if (head_dim > 128) return {.dout_stages = 1};
  return {};
}

}  // namespace annulus::attn::sm90
