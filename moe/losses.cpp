// Balancing losses: one formula over sets of tokens serves micro-batch, sequence and global ones.
#include "moe/router_input.h"
#include "moe/router_math.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace annulus::moe {
namespace {

constexpr auto at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::int64_t set_at(std::span<const std::int32_t> set_of, std::int64_t token, std::int64_t sets) {
  const std::int64_t set = set_of.empty() ? 0 : set_of[at(token)];
  if (set < 0 || set >= sets) {
    throw InvalidArgument(
        fmt::format("losses: token {}: set {} is not in [0, {})", token, set, sets));
  }
  return set;
}

void check_sets(std::int64_t tokens, std::span<const std::int32_t> set_of) {
  if (!set_of.empty() && static_cast<std::int64_t>(set_of.size()) != tokens) {
    throw InvalidArgument(
        fmt::format("losses: set_of has {} values, there are {} tokens", set_of.size(), tokens));
  }
}

void check_gradient(const RouterInput& input, std::span<float> dlogits) {
  if (!dlogits.empty() && dlogits.size() != input.logits.size()) {
    throw InvalidArgument(fmt::format("losses: dlogits has {} values, there are {} logits",
                                      dlogits.size(), input.logits.size()));
  }
}

void check_scope(const RouterConfig& config, const LossScope& scope) {
  if (scope.sets < 0 || scope.experts != config.experts ||
      scope.selections.size() != at(scope.sets * scope.experts) ||
      scope.tokens.size() != at(scope.sets)) {
    throw InvalidArgument(fmt::format(
        "losses: a scope of {} sets and {} experts ({} selections, {} tokens) does not fit {} "
        "experts",
        scope.sets, scope.experts, scope.selections.size(), scope.tokens.size(), config.experts));
  }
}

bool counts(const RouterInput& input, std::int64_t token, std::span<const float> logits) {
  return !is_padding(input, token) && is_finite_row(logits);
}

/// The k largest scores by themselves. Logits rank as softmax and sigmoid do.
class PlainTopK {
 public:
  PlainTopK(const RouterConfig& config, LossRoom& room) : k_(config.k), order_(room.order) {
    order_.resize(at(config.experts));
  }

  std::span<const std::int64_t> of(std::span<const float> logits) {
    std::iota(order_.begin(), order_.end(), 0);
    std::partial_sort(order_.begin(), order_.begin() + k_, order_.end(),
                      [logits](std::int64_t a, std::int64_t b) {
                        const float x = logits[at(a)], y = logits[at(b)];
                        return x != y ? x > y : a < b;
                      });
    return std::span(order_).first(at(k_));
  }

 private:
  std::int64_t k_;
  std::vector<std::int64_t>& order_;
};

/// q of one token, and dL/dz from h = dL/dq.
class Shares {
 public:
  Shares(const RouterConfig& config, LossRoom& room)
      : sigmoid_(config.score == Score::sigmoid), q_(room.shares) {
    q_.resize(at(config.experts));
  }

  std::span<const float> of(std::span<const float> logits) {
    if (!sigmoid_) {
      softmax(logits, q_);
      return q_;
    }
    sum_ = static_cast<double>(kSigmoidFloor);
    for (std::size_t e = 0; e < q_.size(); ++e) {
      q_[e] = sigmoid(logits[e]);
      sum_ += static_cast<double>(q_[e]);
    }
    for (float& q : q_) q = static_cast<float>(static_cast<double>(q) / sum_);
    return q_;
  }

  void add_gradient(std::span<const float> logits, std::span<const double> h, double scale,
                    std::span<float> dlogits) const {
    double mean = 0;
    for (std::size_t e = 0; e < q_.size(); ++e) mean += h[e] * static_cast<double>(q_[e]);
    for (std::size_t e = 0; e < q_.size(); ++e) {
      const double slope = sigmoid_ ? static_cast<double>(sigmoid_slope(logits[e])) / sum_
                                    : static_cast<double>(q_[e]);
      dlogits[e] += static_cast<float>(scale * (h[e] - mean) * slope);
    }
  }

 private:
  bool sigmoid_;
  std::vector<float>& q_;
  double sum_ = 1;
};

}  // namespace

void LossScope::add(const LossScope& other) {
  if (other.sets != sets || other.experts != experts) {
    throw InvalidArgument(fmt::format("losses: a scope of {} sets x {} experts cannot join {} x {}",
                                      other.sets, other.experts, sets, experts));
  }
  std::ranges::transform(selections, other.selections, selections.begin(), std::plus<>());
  std::ranges::transform(tokens, other.tokens, tokens.begin(), std::plus<>());
}

LossScope count_scope(const RouterConfig& config, const RouterInput& input, std::int64_t sets,
                      std::span<const std::int32_t> set_of) {
  LossScope scope;
  LossRoom room;
  count_scope(config, input, sets, set_of, scope, room);
  return scope;
}

void count_scope(const RouterConfig& config, const RouterInput& input, std::int64_t sets,
                 std::span<const std::int32_t> set_of, LossScope& scope, LossRoom& room) {
  check(config);
  const std::int64_t tokens = tokens_of(config, input);
  check_sets(tokens, set_of);
  if (sets < 0) throw InvalidArgument(fmt::format("losses: {} sets: must be 0 or above", sets));
  scope.sets = sets;
  scope.experts = config.experts;
  scope.selections.assign(at(sets * config.experts), 0);
  scope.tokens.assign(at(sets), 0);
  PlainTopK top(config, room);
  for (std::int64_t token = 0; token < tokens; ++token) {
    const auto logits = row_of(input.logits, token, config.experts);
    if (!counts(input, token, logits)) continue;
    const std::int64_t set = set_at(set_of, token, sets);
    scope.tokens[at(set)] += 1;
    for (const std::int64_t e : top.of(logits)) {
      scope.selections[at(set * config.experts + e)] += 1;
    }
  }
}

double balance_loss(const RouterConfig& config, const RouterInput& input, const LossScope& scope,
                    double alpha, std::span<float> dlogits, std::span<const std::int32_t> set_of,
                    LossRoom* room) {
  check(config);
  const std::int64_t tokens = tokens_of(config, input);
  check_sets(tokens, set_of);
  check_scope(config, scope);
  check_gradient(input, dlogits);
  const auto used = std::ranges::count_if(scope.tokens, [](std::int64_t n) { return n > 0; });
  double loss = 0;
  LossRoom own;
  Shares shares(config, room == nullptr ? own : *room);
  std::vector<double>& n = (room == nullptr ? own : *room).counts;
  n.resize(at(config.experts));
  for (std::int64_t token = 0; token < tokens; ++token) {
    const auto logits = row_of(input.logits, token, config.experts);
    if (!counts(input, token, logits)) continue;
    const std::int64_t set = set_at(set_of, token, scope.sets);
    const auto in_set = static_cast<double>(scope.tokens[at(set)]);
    if (in_set == 0) continue;  // the caller's scope knows no such token: nothing to divide by
    const auto q = shares.of(logits);
    double sum = 0;
    for (std::size_t e = 0; e < n.size(); ++e) {
      n[e] = static_cast<double>(scope.selections[at(set * config.experts) + e]);
      sum += n[e] * static_cast<double>(q[e]);
    }
    const double scale = alpha / static_cast<double>(used) * static_cast<double>(config.experts) /
                         (static_cast<double>(config.k) * in_set * in_set);
    loss += scale * sum;
    if (!dlogits.empty()) {
      shares.add_gradient(logits, n, scale, row_of(dlogits, token, config.experts));
    }
  }
  return loss;
}

double z_loss(const RouterConfig& config, const RouterInput& input, std::int64_t scope_tokens,
              double beta, std::span<float> dlogits, LossRoom* room) {
  check(config);
  const std::int64_t tokens = tokens_of(config, input);
  check_gradient(input, dlogits);
  if (scope_tokens <= 0) return 0;
  const double scale = beta / static_cast<double>(scope_tokens);
  double loss = 0;
  LossRoom own;
  std::vector<float>& p = (room == nullptr ? own : *room).shares;
  p.resize(at(config.experts));
  for (std::int64_t token = 0; token < tokens; ++token) {
    const auto logits = row_of(input.logits, token, config.experts);
    if (!counts(input, token, logits)) continue;
    const double lse = softmax(logits, p);
    loss += scale * lse * lse;
    if (dlogits.empty()) continue;
    const auto out = row_of(dlogits, token, config.experts);
    for (std::size_t e = 0; e < p.size(); ++e) {
      out[e] += static_cast<float>(2 * scale * lse * static_cast<double>(p[e]));
    }
  }
  return loss;
}

}  // namespace annulus::moe
