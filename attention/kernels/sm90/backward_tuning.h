#pragma once

// What of the backward is chosen when it is compiled, as tuning.h has it for the forward.
// hopper_backward.cpp launches default_backward_tuning alone; the others are compiled into tests
// (tests/support/hopper_backward_candidates.h), to be timed side by side.
namespace annulus::attn::sm90 {

/// How a step's dQ reaches memory.
enum class Additions {
  rows,    ///< red.v4 from registers, gathered to 128 bytes of a row
  copies,  ///< by the copy engine from shared memory; a warp of its own starts it
  boxes,   ///< likewise, all rows of 32 columns at once
  dense,   ///< as boxes, to places where a step's dQ would lie together; dQ is wrong
  none,    ///< to learn what additions cost; dQ is wrong
};

struct BackwardTuning {
  Additions additions = Additions::rows;
  /// S of the next step starts before dQ of this one is awaited, and dK comes after dP of the next
  /// step, from shared memory: tensor cores have work throughout.
  bool delayed = false;
  bool ahead = false;         ///< S of the next step starts before dK of this one is awaited
  int stages = 3;             ///< of Q, and of dO
  int loader_registers = 40;  ///< of a thread
  int consumer_registers = 232;
  bool traced = false;  ///< block 0 says how long phases take (trace.cuh)
};

constexpr BackwardTuning default_backward_tuning(int /*head_dim*/) { return {}; }

}  // namespace annulus::attn::sm90
