#pragma once

#include <annulus/moe_layer.h>

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

namespace annulus::moe {

/// What a caller says of a forward's tokens beside x. Backward needs it again.
struct TokenFacts {
  std::uint64_t noise_seed = 0;
  std::int64_t first_token = 0;             ///< of this rank, for noise
  std::vector<std::int32_t> sequence_of{};  ///< [tokens]; empty: all in one
};

/// Adds up words over all ranks of a mesh, on each of them.
using SumOverRanks = std::function<void(std::span<std::int64_t>)>;

inline bool has_losses(const LayerConfig& c) { return c.balance_alpha != 0.0 || c.z_beta != 0.0; }

/// Of tokens, each with a balancing loss of its own.
inline std::int64_t sets_of(const LayerConfig& c) {
  return c.balance_over == BalanceOver::sequences ? c.sequences : 1;
}

/// Sets that have tokens.
std::int64_t used_sets(const LossScope& scope);

/// This rank's scope becomes that of the tokens that `over` says. Returns the tokens of all ranks,
/// which z_loss is over. `words`: room.
std::int64_t sum_scope(BalanceOver over, const SumOverRanks& sum, LossScope& scope,
                       std::vector<std::int64_t>& words);

}  // namespace annulus::moe
