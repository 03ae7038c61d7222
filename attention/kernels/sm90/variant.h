#pragma once

#include "attention/kernels/cuda/geometry.h"
#include "attention/kernels/sm90/schedule.h"

#include <numbers>

// What hopper.cpp, hopper_backward.cpp and the variants, one .cu each, say to each other.
namespace annulus::attn::sm90 {

struct Maps;
struct BackwardMaps;

/// What runs before the kernel: rows that no tile names, and the schedule.
enum class Prelude {
  separate,    ///< a kernel each
  overlapped,  ///< one kernel, during which the blocks of the forward come (programmatic launch)
};

struct Launch {
  const ForwardParams& params;
  cuda::Geometry geometry;
  const Maps& maps;
  Schedule schedule;
  int blocks;
  void* stream;
  bool overlapped = false;  ///< blocks may start before the kernel before them has ended
  std::int64_t keys = 0;    ///< of the whole sequence (AttendGeometry::sequence_keys)
};
using Variant = void (*)(const Launch&);
using VariantEntries = KernelEntries (*)();

/// A variant, and what its launch must know of it.
struct Choice {
  Variant variant = nullptr;
  int tile_keys = 128;
  Prelude prelude = Prelude::overlapped;
};

/// One launch that setup.h finds suited.
void launch_forward(const Choice& choice, const ForwardParams& params,
                    const LaunchContext& context);

/// Query tiles to the workspace in the order in which they are drawn, and the counter to 0; packed
/// queries, where heads are. Keys are walked in steps of at most `step_keys`.
void make_schedule(const cuda::Geometry& geometry, const Input& q, const Schedule& schedule,
                   const Parts& split, int step_keys, void* stream);
/// The same, and what fill_unvisited_rows does, in one kernel; with `zero` the FLOP counter to 0
/// too.
void prepare(const cuda::Geometry& geometry, const ForwardParams& params, const Schedule& schedule,
             const Parts& split, int step_keys, bool zero, void* stream);

/// Behind a launch whose query tiles were split: their parts' states, and the one that the launch
/// resumes from, to where `params` wants them. `overlapped`: its blocks may come early.
void merge_parts(const cuda::Geometry& geometry, const ForwardParams& params, const Parts& split,
                 bool overlapped, void* stream);

// What these and prepare_backward may launch.
KernelEntries prepare_entries();  ///< prepare and make_schedule
KernelEntries merge_entries();
KernelEntries prepare_backward_entries();
/// Of the variant of the backward that serves a query; none: nothing.
KernelEntries backward_entries(const KernelQuery& query);

/// What a backward launch says of scores.
struct Factors {
  float scale;        ///< softmax_scale
  float to_tanh;      ///< product to the argument of tanh; with a softcap
  float to_exponent;  ///< product, or tanh, to exponents of 2
};
inline Factors factors_of(const cuda::Geometry& g) {
  const auto scale = static_cast<float>(g.softmax_scale);
  const auto softcap = static_cast<float>(g.softcap);
  const bool capped = softcap != 0.0F;
  return {scale, capped ? scale / softcap : 0.0F,
          (capped ? softcap : scale) * std::numbers::log2e_v<float>};
}

struct BackwardLaunch {
  const BackwardParams& params;
  cuda::Geometry geometry;
  const BackwardMaps& maps;
  KeySchedule schedule;
  int* turns;  ///< null: dQ is added in any order
  int blocks;
  void* stream;
};
using BackwardVariant = void (*)(const BackwardLaunch&);

/// One launch that setup.h finds suited.
void launch_backward(BackwardVariant variant, const BackwardParams& params,
                     const LaunchContext& context);

/// Query rows of a backward step, and of the boxes of q and dout.
constexpr int backward_rows(std::int64_t head_dim) { return head_dim == 64 ? 128 : 64; }
/// Query rows of a box of dQ.
inline constexpr int kBoxRows = 64;
/// Keys of an item of the backward, and of the boxes of k and v.
constexpr int backward_keys(std::int64_t head_dim) {
  return head_dim == 192 ? 96 : head_dim > 128 ? 64 : 128;
}

/// Before the backward's kernel: the schedule of key tiles, zeroes in dQ, and in dK and dV of keys
/// that no tile names, where the launch assigns them, in `turn_count` turns (null: dQ is added in
/// any order) and in the FLOP counter where the launch says so.
void prepare_backward(const cuda::Geometry& geometry, const BackwardParams& params,
                      const KeySchedule& schedule, int* turns, std::int64_t turn_count,
                      const LaunchContext& context);

}  // namespace annulus::attn::sm90
