#pragma once

#include <annulus/export.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::moe {

struct RouterConfig;
struct RouterInput;

/// Over which tokens selections are counted for a balancing loss: one set for a micro-batch or a
/// global batch, one a sequence for a sequence loss. Sum scopes of ranks with add(): a loss is then
/// that of the whole batch, whoever holds its tokens.
struct LossScope {
  std::int64_t sets = 1;
  std::int64_t experts = 0;
  /// n [sets, experts]: selections by the plain k largest scores, without bias, groups, capacity.
  std::vector<std::int64_t> selections;
  /// T [sets]: tokens without padding and without bad rows (a NaN, +inf, or nothing finite).
  std::vector<std::int64_t> tokens;

  ANNULUS_API void add(const LossScope& other);
};

/// Room for one token. Functions that get one allocate nothing once it has grown to the router.
struct LossRoom {
  std::vector<float> shares;
  std::vector<double> counts;
  std::vector<std::int64_t> order;
};

/// Counts this rank's tokens. `set_of` [tokens] says which set a token is in; empty: all in set 0.
/// Throws InvalidArgument for a set outside [0, sets).
ANNULUS_API LossScope count_scope(const RouterConfig& config, const RouterInput& input,
                                  std::int64_t sets = 1, std::span<const std::int32_t> set_of = {});
/// The same into a scope that was there.
ANNULUS_API void count_scope(const RouterConfig& config, const RouterInput& input,
                             std::int64_t sets, std::span<const std::int32_t> set_of,
                             LossScope& scope, LossRoom& room);

/// This rank's part of alpha / S * sum over sets of E / (k T^2) * sum_e n_e sum_t q_te, where q is
/// the softmax of a token's logits, or for sigmoid routers s / (sum s + 1e-20), and S the sets that
/// have tokens. One set of one rank: the loss of Switch (k = 1) and of Megatron; a set a sequence:
/// the sequence loss; one set summed over all ranks: the global loss. The parts of all ranks sum to
/// the loss. 0 without tokens. Adds the gradient to dlogits [tokens, experts] unless it is empty;
/// n and T are constants in it.
ANNULUS_API double balance_loss(const RouterConfig& config, const RouterInput& input,
                                const LossScope& scope, double alpha, std::span<float> dlogits = {},
                                std::span<const std::int32_t> set_of = {},
                                LossRoom* room = nullptr);

/// This rank's part of beta / T * sum_t logsumexp(z_t)^2 (arXiv 2202.08906), T the tokens of all
/// ranks: sum of LossScope::tokens. Adds its gradient to dlogits unless that is empty.
ANNULUS_API double z_loss(const RouterConfig& config, const RouterInput& input,
                          std::int64_t scope_tokens, double beta, std::span<float> dlogits = {},
                          LossRoom* room = nullptr);

}  // namespace annulus::moe
