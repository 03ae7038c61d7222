#pragma once

#include "moe/kernels/params.h"
#include "runtime/base/kernel_entries.h"

#include <annulus/moe.h>

#include <cstddef>
#include <cstdint>
#include <limits>

// What MoE kernels on GPUs are given, all of it in device memory, and their entry points: each
// enqueues on a stream (cudaStream_t) and returns. No host memory is read after that, so that a
// graph may hold them. They know nothing of ranks but a table of pointers.
namespace annulus::moe::cuda {

inline constexpr std::int64_t kMostExperts = 512;
inline constexpr std::int64_t kMostSlots = 32;  ///< experts of a token: one lane each
inline constexpr std::int64_t kMostRanks = 64;
inline constexpr std::int64_t kTokensPerBlock = 256;  ///< of placement

/// Throws DeviceError when the last launch failed. Launch errors only: the device is not awaited.
void check_launch(const char* kernel);

/// All kernels that the entry points of this folder may launch, but for products (kernel.h). Which
/// of them depends on where operands lie.
KernelEntries entries();
// Its parts, by file.
KernelEntries activate_entries();
KernelEntries balance_entries();
KernelEntries placement_entries();
KernelEntries router_entries();
KernelEntries rows_entries();

/// A router after its product. RouterConfig's fields, narrowed by route_params.
struct RouteParams {
  std::int64_t tokens = 0;
  std::int32_t experts = 0;
  std::int32_t k = 0;
  Score score = Score::softmax_selected;
  bool renormalize = false;
  bool wide = false;  ///< rows of logits may be read 16 bytes at a time
  float scale = 1.0F;
  double epsilon = 0.0;
  std::int32_t groups = 1;
  std::int32_t groups_kept = 1;
  std::int32_t group_top = 1;
  const float* logits = nullptr;          ///< [tokens][experts]
  const float* bias = nullptr;            ///< [experts]; null: none
  const std::uint8_t* padding = nullptr;  ///< [tokens]; null: none
  std::int32_t* indices = nullptr;        ///< [tokens][k]
  float* weights = nullptr;               ///< [tokens][k]
  unsigned* bad_tokens = nullptr;         ///< added to; may be null
};

/// The configuration's half, of one that was checked. Throws Unsupported beyond kMostExperts and
/// kMostSlots.
RouteParams route_params(const RouterConfig& config);
void route(RouteParams params, void* stream);

/// d(logits) from d(weights): Router::backward. Losses add theirs.
struct RouteBackwardParams {
  RouteParams forward;                 ///< logits are read, and `indices`: what was selected
  const std::int32_t* kept = nullptr;  ///< [tokens][k]; -1: dropped. Null: nothing was
  const float* dweights = nullptr;     ///< [tokens][k]
  float* dlogits = nullptr;            ///< [tokens][experts], every element is written
};
void route_backward(RouteBackwardParams params, void* stream);

/// Placement in three kernels: counts by block of tokens, their scan, places. Between the second
/// and the third the ranks gather `counts` to `matrix`; one rank alone gives the same pointer.
struct PlaceParams {
  std::int32_t tokens = 0;
  std::int32_t k = 0;
  std::int32_t experts = 0;
  std::int32_t ranks = 1;
  std::int32_t sources = 1;
  std::int32_t source = 0;
  std::int32_t alignment = 1;
  const std::int32_t* indices = nullptr;  ///< [tokens][k]; what is no expert counts as -1
  std::int32_t* room = nullptr;           ///< place_room() values, nothing between calls
  std::int64_t* counts = nullptr;         ///< [experts]: count_selections
  std::int64_t* rank_tokens = nullptr;    ///< [ranks]: tokens with an expert there; may be null
  const std::int64_t* matrix = nullptr;   ///< [sources][experts]
  // As Placement has them.
  std::int32_t* rank = nullptr;
  std::int64_t* row = nullptr;
  std::int64_t* expert_first = nullptr;
  std::int64_t* expert_rows = nullptr;
  std::int64_t* rank_rows = nullptr;
  std::int64_t* unique_first = nullptr;
  std::int64_t* unique_tokens = nullptr;  ///< room for tokens * min(k, ranks)
  std::int64_t* unique_of = nullptr;
  /// Becomes 1 where the matrix does not hold this source's counts: places mean nothing then.
  std::uint32_t* mismatch = nullptr;

  std::int32_t blocks() const {
    return static_cast<std::int32_t>((tokens + kTokensPerBlock - 1) / kTokensPerBlock);
  }
  /// What is counted: pairs of each expert, then tokens of each rank.
  std::int32_t columns() const { return experts + ranks; }
};

std::int64_t place_room(const PlaceParams& params);
/// Writes `counts`. Throws Unsupported beyond kMostExperts and kMostRanks.
void count_pairs(const PlaceParams& params, void* stream);
/// After count_pairs of the same indices. Writes all that Placement has.
void place_pairs(const PlaceParams& params, void* stream);

/// Rows of tokens to where placement says, whoever's memory that is: dispatch. Also d(out) to the
/// rows of its slots.
struct ScatterParams {
  std::int64_t tokens = 0;
  std::int32_t k = 0;
  bool once_a_rank = false;  ///< of slots with one rank, the first alone (de-duplication)
  std::int64_t low = 0;      ///< places outside [low, high) go nowhere: they are another round's
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
  std::int64_t bytes = 0;  ///< of a row
  const std::byte* from = nullptr;
  std::int64_t from_stride = 0;         ///< bytes
  const std::int32_t* rank = nullptr;   ///< [tokens][k]; null: all 0
  const std::int64_t* place = nullptr;  ///< [tokens][k]; -1: nowhere
  const float* weights = nullptr;       ///< [tokens][k]; null: none travel. Not once_a_rank
  std::byte* to[kMostRanks] = {};       ///< row 0 on each rank; compact rows
  float* weights_to[kMostRanks] = {};   ///< the same for weights
  std::int64_t first[kMostRanks] = {};  ///< is added to places
  /// once_a_rank: rows that expanding is to fill, [tokens][k]. Weights go there, and to `source_of`
  /// where the token's row came to. Those on rank `own` are stored at once, and have source -1.
  const std::int64_t* row = nullptr;
  std::int64_t* source_of[kMostRanks] = {};
  std::int32_t own = -1;
  std::byte* own_rows = nullptr;
};
/// `blocks` 0: as many as the GPU holds; fewer leave SMs to others.
void scatter(const ScatterParams& params, int blocks, void* stream);

/// `sum` of params.h over rows that lie on several ranks: combine by loads.
struct CombineParams {
  SumParams sum;                           ///< `rows` is not read
  const std::int32_t* rank = nullptr;      ///< [tokens][k]; null: all 0
  const std::byte* rows[kMostRanks] = {};  ///< row 0 on each rank; compact rows
};
void combine(const CombineParams& params, int blocks, void* stream);

/// Rows of a round back to their tokens' rank: to[pair] = from[rank][place - low].
struct FetchParams {
  std::int64_t tokens = 0;
  std::int32_t k = 0;
  std::int64_t low = 0;  ///< places outside [low, high) are another round's
  std::int64_t high = 0;
  std::int64_t bytes = 0;               ///< of a row
  const std::int32_t* rank = nullptr;   ///< [tokens][k]
  const std::int64_t* place = nullptr;  ///< [tokens][k]; -1: nowhere
  const std::byte* from[kMostRanks] = {};
  std::byte* to = nullptr;     ///< [tokens][k] rows
  std::int64_t* at = nullptr;  ///< [tokens][k]: the pair, or -1 where it has no place
};
void fetch(const FetchParams& params, void* stream);

/// One value of a row for each pair, from whatever rank has it: to[pair] = from[rank][place - low].
struct PullParams {
  std::int64_t pairs = 0;
  const std::int32_t* rank = nullptr;   ///< [pairs]; null: all 0
  const std::int64_t* place = nullptr;  ///< [pairs]; -1: to is 0
  std::int64_t low = 0;                 ///< outside [low, high) `to` is left alone
  std::int64_t high = std::numeric_limits<std::int64_t>::max();
  const float* from[kMostRanks] = {};
  float* to = nullptr;
};
void pull(const PullParams& params, void* stream);

/// Each value as high + low, of bf16 or f16.
struct SplitParams {
  std::int64_t count = 0;
  DType dtype = DType::bf16;
  const float* from = nullptr;
  void* high = nullptr;
  void* low = nullptr;
};
void split(const SplitParams& params, void* stream);

void copy_rows(const CopyParams& params, void* stream);
void activate_rows(const ActivateParams& params, bool backward, void* stream);

}  // namespace annulus::moe::cuda
