#pragma once

#include "moe/kernels/cuda/launch.h"

#include <cstdint>

// What is done around a router to use its experts evenly: losses, dropping by capacity, the bias of
// balancing without a loss, noise on its input. moe/losses.cpp, capacity.cpp and router_balance.cpp
// say what each computes. Atomics count only; sums have one order, so that bits repeat.
namespace annulus::moe::cuda {

/// Balancing loss and z-loss.
struct LossParams {
  RouteParams route;                     ///< logits and padding are read
  std::int64_t sets = 1;                 ///< of tokens, each with a balancing loss of its own
  const std::int32_t* set_of = nullptr;  ///< [tokens] in [0, sets); null: all in set 0
  /// [sets][experts] selections, then [sets] tokens. count_losses adds to them, add_losses reads
  /// those of all ranks.
  std::int64_t* counts = nullptr;
  // Of add_losses.
  double alpha = 0.0;        ///< over the number of sets that have tokens
  double beta = 0.0;         ///< over the number of tokens of all ranks
  double* terms = nullptr;   ///< [2][tokens], nothing between calls; null: no sums are wanted
  double* sums = nullptr;    ///< [2]: this rank's part of the balancing loss and of the z-loss
  float* dlogits = nullptr;  ///< [tokens][experts], added to; null: none
};
void count_losses(LossParams params, void* stream);
void add_losses(LossParams params, void* stream);

/// Pairs over an expert's capacity become -1 with weight 0.
struct DropParams {
  std::int64_t tokens = 0;
  std::int32_t k = 0;
  std::int32_t experts = 0;
  std::int64_t most = 0;  ///< pairs that an expert may keep
  DropPolicy policy = DropPolicy::probability;
  const std::int32_t* indices = nullptr;  ///< [tokens][k]
  const float* weights = nullptr;
  std::int32_t* kept = nullptr;  ///< [tokens][k], the same without what is dropped
  float* kept_weights = nullptr;
  std::int32_t* room = nullptr;     ///< [experts][tokens], nothing between calls
  std::int64_t* dropped = nullptr;  ///< added to
};
void drop_pairs(const DropParams& params, void* stream);

/// to = from * (1 + amount (2u - 1)), u as moe::jitter has it. Rows of `dtype`; `to` is compact.
struct JitterParams {
  DType dtype = DType::f32;
  std::int64_t tokens = 0;
  std::int64_t hidden = 0;
  float amount = 0.0F;
  std::uint64_t seed = 0;
  std::int64_t first_token = 0;
  const void* from = nullptr;
  std::int64_t from_stride = 0;  ///< elements
  void* to = nullptr;
  bool add = false;  ///< f32 alone: to += instead
};
void jitter(const JitterParams& params, void* stream);

/// moe::update_bias over [experts].
struct BiasParams {
  std::int32_t experts = 0;
  float step = 0.0F;
  const std::int64_t* counts = nullptr;
  float* bias = nullptr;
};
void update_bias(const BiasParams& params, void* stream);

}  // namespace annulus::moe::cuda
