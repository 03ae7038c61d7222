#pragma once

#include <cstdint>

// What of the forward is chosen when it is compiled. hopper.cpp launches default_tuning alone; the
// others are compiled into tests (tests/support/hopper_candidates.h), to be timed side by side.
namespace annulus::attn::sm90 {

struct Tuning {
  int groups = 2;       ///< consumer warpgroups, of 64 query rows each
  int tile_keys = 128;  ///< of a step, at most
  int stages = 2;       ///< of K, and of V
  /// Items whose queries have room: this one and those ahead. With 1, the next item's come when the
  /// scores of the last step are there, and output leaves from registers.
  int query_buffers = 2;
  /// Each consumer warpgroup starts its products when the one before it has started its own: so one
  /// computes products while another does its softmax.
  bool turns = true;
  /// A warp leaves the maxima of its rows alone until one has grown by more than 2^slack, and with
  /// them its output so far. Results are as exact: probabilities and sums have one maximum. An
  /// item's first step has no slack (notes/01, "How exact many ranks are").
  int slack = 0;
  /// Steps without masks are exponentiated under the maxima of before, and these looked for only if
  /// a sum says that some may have grown by more than slack allows: from scores computed once more.
  /// Decisions, and so bits, are those of looking each time.
  bool late_maxima = false;
  int loader_registers = 40;  ///< of a thread
  int consumer_registers = 232;
  bool traced = false;  ///< block 0 says how long phases take (trace.cuh)
};

constexpr int threads_of(const Tuning& t) { return 128 * (1 + t.groups); }
inline constexpr int kMostTileRows = 192;  ///< of any tuning

constexpr int tile_rows_of(const Tuning& t) { return 64 * t.groups; }

/// Multiples of 8, and in all not more than a launch gives the block: a warpgroup that wanted more
/// would wait for ever.
constexpr bool registers_suit(const Tuning& t) {
  const int launched = 65536 / threads_of(t) / 8 * 8;
  return t.loader_registers % 8 == 0 && t.consumer_registers % 8 == 0 && t.loader_registers >= 24 &&
         t.loader_registers + t.groups * t.consumer_registers <= launched * (1 + t.groups);
}

/// Sequences of at most so many keys have steps of fewer, of which fewer are empty (notes/07).
inline constexpr std::int64_t kShortKeys = 8192;
/// `keys`: of the whole sequence; 0: not known.
constexpr bool has_short_steps(std::int64_t head_dim, bool capped, std::int64_t keys) {
  return head_dim == 128 && !capped && keys > 0 && keys <= kShortKeys;
}

/// Head dims that have their own tuning; the others have none.
constexpr Tuning default_tuning(std::int64_t head_dim, std::int64_t head_dim_v, bool capped,
                                std::int64_t keys = 0) {
  if (has_short_steps(head_dim, capped, keys)) return {.slack = 8, .late_maxima = true};
  if (head_dim == 256) {
    return {.tile_keys = 80,
            .query_buffers = 1,
            .turns = false,
            .slack = 8,
            .late_maxima = true,
            .loader_registers = 24,
            .consumer_registers = 240};
  }
  if (head_dim == 192) {
    return {.tile_keys = head_dim_v == 128 ? 128 : 112,
            .query_buffers = 1,
            .turns = false,
            .slack = 8,
            .loader_registers = capped ? 32 : 24,
            .consumer_registers = capped ? 232 : 240};
  }
  // With a softcap, three consumer warpgroups have too few registers.
  if (capped) return {.stages = head_dim == 64 ? 4 : 2};
  if (head_dim == 128) {
    return {.tile_keys = 160,
            .turns = false,
            .slack = 8,
            .late_maxima = true,
            .loader_registers = 24,
            .consumer_registers = 240};
  }
  if (head_dim == 96) {
    return {.groups = 3,
            .tile_keys = 96,
            .turns = false,
            .slack = 8,
            .late_maxima = true,
            .loader_registers = 32,
            .consumer_registers = 160};
  }
  return {.groups = 3,
          .stages = 4,
          .slack = 8,
          .late_maxima = true,
          .loader_registers = 32,
          .consumer_registers = 160};
}

}  // namespace annulus::attn::sm90
