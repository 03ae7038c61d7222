// Selection and weights. The order of steps is that of docs/moe.md.
#include "moe/router_input.h"
#include "moe/router_math.h"
#include "moe/routing.h"

#include <algorithm>
#include <cassert>
#include <numeric>

namespace annulus::moe {
namespace {

using Order = std::vector<std::int64_t>;

/// Selection scores with NaN as -inf. Softmax is monotone, so its logits rank as it does, without
/// the ties that rounding would add.
void rank_experts(const RouterConfig& config, std::span<const float> logits,
                  std::span<const float> bias, std::span<float> ranked) {
  for (std::size_t e = 0; e < logits.size(); ++e) {
    float score = logits[e];
    if (config.score == Score::sigmoid) {
      score = sigmoid(score) + (bias.empty() ? 0.0F : bias[e]);
    }
    ranked[e] = std::isnan(score) ? kNoCandidate : score;
  }
}

/// First the largest, of equal ones the lower index.
auto by_value(std::span<const float> values) {
  return [values](std::int64_t a, std::int64_t b) {
    const float x = values[static_cast<std::size_t>(a)];
    const float y = values[static_cast<std::size_t>(b)];
    return x != y ? x > y : a < b;
  };
}

void take_best(Order& order, std::int64_t count, std::span<const float> values) {
  std::partial_sort(order.begin(), order.begin() + count, order.end(), by_value(values));
}

float group_score(std::span<const float> members, std::int64_t top, Order& order) {
  order.resize(members.size());
  std::iota(order.begin(), order.end(), 0);
  take_best(order, top, members);
  float sum = 0;
  for (std::int64_t i = 0; i < top; ++i) {
    sum += members[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])];
  }
  return sum;
}

/// `order` becomes the experts of the kept groups: the others are no candidates, not even where
/// nothing finite is left.
void list_candidates(const RouterConfig& c, std::span<const float> ranked, std::span<float> groups,
                     Order& order, Order& kept) {
  const std::int64_t size = c.experts / c.groups;
  for (std::int64_t g = 0; g < c.groups; ++g) {
    const float score = group_score(row_of(ranked, g, size), c.group_top, order);
    // an infinite bias of each sign makes no number
    groups[static_cast<std::size_t>(g)] = std::isnan(score) ? kNoCandidate : score;
  }
  kept.resize(groups.size());
  std::iota(kept.begin(), kept.end(), 0);
  take_best(kept, c.groups_kept, groups);
  order.clear();
  for (std::int64_t i = 0; i < c.groups_kept; ++i) {
    for (std::int64_t e = 0; e < size; ++e) {
      order.push_back(kept[static_cast<std::size_t>(i)] * size + e);
    }
  }
}

}  // namespace

Router::Router(const RouterConfig& config) : config_(config) {
  check(config);
  const auto experts = static_cast<std::size_t>(config.experts);
  scores_.resize(experts);
  ranked_.resize(experts);
  groups_.resize(static_cast<std::size_t>(config.groups));
  shares_.resize(static_cast<std::size_t>(config.k));
  gradients_.resize(static_cast<std::size_t>(config.k));
  order_.reserve(experts);
  kept_groups_.reserve(groups_.size());
}

void Router::select(std::span<const float> logits, std::span<const float> bias,
                    std::span<std::int32_t> chosen) {
  rank_experts(config_, logits, bias, ranked_);
  if (config_.groups_kept < config_.groups) {
    list_candidates(config_, ranked_, groups_, order_, kept_groups_);
  } else {
    order_.resize(ranked_.size());
    std::iota(order_.begin(), order_.end(), 0);
  }
  take_best(order_, config_.k, ranked_);
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) {
    chosen[slot] = static_cast<std::int32_t>(order_[slot]);
  }
}

bool Router::weigh(std::span<const float> logits, std::span<const std::int32_t> chosen,
                   std::span<float> shares) {
  if (has_nan(logits)) return false;
  const bool over_all = config_.score == Score::softmax_all && !config_.renormalize;
  if (over_all) softmax(logits, scores_);
  for (std::size_t slot = 0; slot < chosen.size(); ++slot) {
    const auto e = static_cast<std::size_t>(chosen[slot]);
    shares[slot] = config_.score == Score::sigmoid ? sigmoid(logits[e])
                   : over_all                      ? scores_[e]
                                                   : logits[e];
  }
  if (config_.score == Score::sigmoid) {
    if (!config_.renormalize || config_.k == 1) return true;
    double sum = config_.epsilon;
    for (const float s : shares) sum += static_cast<double>(s);
    for (float& s : shares) s = static_cast<float>(static_cast<double>(s) / sum);
  } else if (!over_all) {
    softmax(shares, shares);
  }
  return std::ranges::all_of(shares, [](float w) { return std::isfinite(w); });
}

void Router::forward(const RouterInput& input, Routing& routing, RouterStatus& status) {
  routing.tokens = tokens_of(config_, input);
  routing.k = config_.k;
  routing.experts = config_.experts;
  const auto pairs = static_cast<std::size_t>(routing.tokens * routing.k);
  routing.indices.assign(pairs, -1);
  routing.weights.assign(pairs, 0.0F);
  const auto k = static_cast<std::size_t>(config_.k);
  const auto scale = static_cast<float>(config_.scale);
  for (std::int64_t token = 0; token < routing.tokens; ++token) {
    if (is_padding(input, token)) continue;
    const std::span chosen(&routing.indices[pair_of(routing, token, 0)], k);
    const std::span weights(&routing.weights[pair_of(routing, token, 0)], k);
    const auto logits = row_of(input.logits, token, config_.experts);
    select(logits, input.bias, chosen);
    const bool good = weigh(logits, chosen, weights);
    for (float& w : weights) w = good ? w * scale : 0.0F;
    status.tokens += 1;
    status.bad_tokens += good ? 0 : 1;
  }
#ifndef NDEBUG
  check(routing);  // ids are different: what follows relies on it
#endif
}

}  // namespace annulus::moe
