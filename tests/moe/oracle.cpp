#include "tests/moe/oracle.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace annulus::moe::testing {
namespace {

constexpr double kMinusInfinity = -std::numeric_limits<double>::infinity();

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

double logistic(double z) { return 1 / (1 + std::exp(-z)); }

std::vector<double> soft(std::span<const double> z) {
  const double most = *std::ranges::max_element(z);
  std::vector<double> p;
  double sum = 0;
  for (const double value : z) {
    p.push_back(std::exp(value - most));
    sum += p.back();
  }
  for (double& value : p) value /= sum;
  return p;
}

/// One of `values` that is largest, the first of equals; `gap` shrinks to its lead.
std::int64_t take_largest(std::vector<double>& values, double& gap) {
  std::int64_t best = 0;
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (values[i] > values[at(best)]) best = static_cast<std::int64_t>(i);
  }
  const double value = values[at(best)];
  values[at(best)] = kMinusInfinity;
  const double next = *std::ranges::max_element(values);
  if (std::isfinite(next)) gap = std::min(gap, value - next);
  return best;
}

/// -inf outside the best groups.
void mask_groups(const RouterConfig& c, std::vector<double>& scores, double& gap) {
  const std::int64_t size = c.experts / c.groups;
  std::vector<double> of_group;
  for (std::int64_t g = 0; g < c.groups; ++g) {
    std::vector<double> members(scores.begin() + g * size, scores.begin() + (g + 1) * size);
    std::ranges::sort(members, std::greater<>());
    double sum = 0;
    for (std::int64_t i = 0; i < c.group_top; ++i) sum += members[at(i)];
    of_group.push_back(sum);
  }
  std::vector<bool> kept(at(c.groups), false);
  for (std::int64_t i = 0; i < c.groups_kept; ++i) kept[at(take_largest(of_group, gap))] = true;
  for (std::int64_t e = 0; e < c.experts; ++e) {
    if (!kept[at(e / size)]) scores[at(e)] = kMinusInfinity;
  }
}

}  // namespace

std::vector<std::int64_t> largest(std::span<const double> values, std::int64_t k) {
  std::vector<double> left(values.begin(), values.end());
  std::vector<std::int64_t> taken;
  double unused = 0;
  for (std::int64_t i = 0; i < k; ++i) taken.push_back(take_largest(left, unused));
  return taken;
}

std::vector<double> oracle_weights(const RouterConfig& c, std::span<const double> logits,
                                   std::span<const std::int64_t> chosen) {
  std::vector<double> weights;
  if (c.score == Score::softmax_selected) {
    std::vector<double> picked;
    for (const std::int64_t e : chosen) picked.push_back(logits[at(e)]);
    weights = soft(picked);
  } else {
    const std::vector<double> p =
        c.score == Score::softmax_all ? soft(logits) : std::vector<double>();
    for (const std::int64_t e : chosen) {
      weights.push_back(p.empty() ? logistic(logits[at(e)]) : p[at(e)]);
    }
    const bool sigmoids = c.score == Score::sigmoid;
    if (c.renormalize && !(sigmoids && c.k == 1)) {
      double sum = sigmoids ? c.epsilon : 0;
      for (const double w : weights) sum += w;
      for (double& w : weights) w /= sum;
    }
  }
  for (double& w : weights) w *= c.scale;
  return weights;
}

OracleToken oracle_token(const RouterConfig& c, std::span<const double> logits,
                         std::span<const float> bias) {
  OracleToken token;
  std::vector<double> scores(logits.begin(), logits.end());
  if (c.score == Score::sigmoid) {
    for (std::size_t e = 0; e < scores.size(); ++e) {
      scores[e] = logistic(scores[e]) + (bias.empty() ? 0 : static_cast<double>(bias[e]));
    }
  }
  if (c.groups_kept < c.groups) mask_groups(c, scores, token.gap);
  for (std::int64_t i = 0; i < c.k; ++i) token.chosen.push_back(take_largest(scores, token.gap));
  token.weights = oracle_weights(c, logits, token.chosen);
  return token;
}

std::vector<double> oracle_shares(const RouterConfig& c, std::span<const double> logits) {
  if (c.score != Score::sigmoid) return soft(logits);
  std::vector<double> q;
  double sum = 1e-20;
  for (const double z : logits) {
    q.push_back(logistic(z));
    sum += q.back();
  }
  for (double& value : q) value /= sum;
  return q;
}

double oracle_lse(std::span<const double> logits) {
  const double most = *std::ranges::max_element(logits);
  double sum = 0;
  for (const double z : logits) sum += std::exp(z - most);
  return most + std::log(sum);
}

std::vector<double> Case::row(std::int64_t token) const {
  const auto first = logits.begin() + token * config.experts;
  return {first, first + config.experts};
}

std::string Case::describe() const {
  std::ostringstream text;
  text << "seed " << seed << ": " << tokens << " tokens, " << config.experts << " experts, k "
       << config.k << ", score " << static_cast<int>(config.score) << ", renormalize "
       << config.renormalize << ", groups " << config.groups_kept << " of " << config.groups
       << " by " << config.group_top << ", bias " << !bias.empty() << ", scale " << config.scale;
  return text.str();
}

Case random_case(std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  const auto pick = [&](std::initializer_list<std::int64_t> of) {
    return *(of.begin() + static_cast<std::ptrdiff_t>(generator() % of.size()));
  };
  Case c;
  c.seed = seed;
  c.tokens = pick({1, 3, 7, 33, 5, 16});
  c.config.score = static_cast<Score>(generator() % 3);
  c.config.renormalize = generator() % 2 == 0;
  c.config.scale = generator() % 2 == 0 ? 1.0 : 2.5;
  c.config.groups = pick({1, 3, 1, 8, 5});
  const std::int64_t size = pick({3, 1, 5, 7, 32, 4});
  c.config.experts = c.config.groups * size;
  c.config.groups_kept = 1 + static_cast<std::int64_t>(generator() % at(c.config.groups));
  if (c.config.score == Score::sigmoid) {
    c.config.group_top = std::min<std::int64_t>(size, pick({2, 1, 3}));
  }
  c.config.k = std::min<std::int64_t>(size * c.config.groups_kept, pick({1, 2, 3, 8, 5}));
  std::normal_distribution<float> normal(0.0F, 2.0F);
  for (std::int64_t i = 0; i < c.tokens * c.config.experts; ++i)
    c.logits.push_back(normal(generator));
  if (c.config.score == Score::sigmoid && generator() % 3 != 0) {
    std::uniform_real_distribution<float> uniform(-1.0F, 0.5F);  // negative sums too
    for (std::int64_t e = 0; e < c.config.experts; ++e) c.bias.push_back(uniform(generator));
  }
  return c;
}

}  // namespace annulus::moe::testing
