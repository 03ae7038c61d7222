// Balancing losses and z-loss: goldens, the definition in float64, finite differences, and parts of
// ranks that sum to the whole.
#include "tests/moe/oracle.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace annulus::moe::testing {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Rows = std::vector<std::vector<double>>;

/// What is counted: by token its set, or -1 for one that is left out.
struct Sets {
  std::int64_t count = 1;
  std::vector<std::int32_t> of;
};

Sets random_sets(const Case& c, std::int64_t count) {
  std::mt19937_64 generator(c.seed + 77);
  Sets sets{.count = count, .of = {}};
  for (std::int64_t t = 0; t < c.tokens; ++t) {
    sets.of.push_back(static_cast<std::int32_t>(generator() % static_cast<std::uint64_t>(count)));
  }
  return sets;
}

/// Selections are held at those of `counted`, as the gradient has them.
double oracle_balance(const Case& c, const Rows& rows, const Sets& sets, double alpha,
                      const LossScope& counted) {
  double loss = 0;
  std::int64_t used = 0;
  for (std::int64_t s = 0; s < sets.count; ++s) {
    std::vector<double> mean(static_cast<std::size_t>(c.config.experts), 0.0);
    double tokens = 0;
    for (std::size_t t = 0; t < rows.size(); ++t) {
      if (sets.of[t] != s) continue;
      tokens += 1;
      const auto q = oracle_shares(c.config, rows[t]);
      for (std::size_t e = 0; e < q.size(); ++e) mean[e] += q[e];
    }
    if (tokens == 0) continue;
    ++used;
    for (std::size_t e = 0; e < mean.size(); ++e) {
      const double f = static_cast<double>(
                           counted.selections[static_cast<std::size_t>(s * c.config.experts) + e]) /
                       (static_cast<double>(c.config.k) * tokens);
      loss += alpha * static_cast<double>(c.config.experts) * f * mean[e] / tokens;
    }
  }
  return used == 0 ? 0 : loss / static_cast<double>(used);
}

double oracle_z(const Rows& rows, double beta) {
  double sum = 0;
  for (const auto& row : rows) sum += oracle_lse(row) * oracle_lse(row);
  return beta * sum / static_cast<double>(rows.size());
}

Rows rows_of(const Case& c) {
  Rows rows;
  for (std::int64_t t = 0; t < c.tokens; ++t) rows.push_back(c.row(t));
  return rows;
}

template <typename Loss>
void expect_differences(Rows rows, const std::vector<float>& gradient, double scale, Loss loss) {
  std::size_t i = 0;
  for (auto& row : rows) {
    for (double& z : row) {
      const double there = z;
      constexpr double kStep = 1e-5;
      z = there + kStep;
      const double above = loss(rows);
      z = there - kStep;
      const double expected = (above - loss(rows)) / (2 * kStep);
      z = there;
      // 1 was there before: gradients are added
      ASSERT_NEAR(static_cast<double>(gradient[i]) - 1.0, expected, scale) << "logit " << i;
      ++i;
    }
  }
}

/// p, as logits of a softmax router of two experts.
Case two_experts(const std::vector<float>& p) {
  Case c;
  c.config = RouterConfig::switch_transformer(2);
  c.tokens = static_cast<std::int64_t>(p.size());
  for (const float value : p) {
    c.logits.push_back(std::log(value));
    c.logits.push_back(std::log(1 - value));
  }
  return c;
}

TEST(BalanceLoss, Goldens) {
  Case c = two_experts({0.9F, 0.8F, 0.3F, 0.6F});
  LossScope scope = count_scope(c.config, c.input());
  EXPECT_THAT(scope.selections, ElementsAre(3, 1));
  EXPECT_THAT(scope.tokens, ElementsAre(4));
  EXPECT_NEAR(balance_loss(c.config, c.input(), scope, 1.0), 1.15, 1e-6);
  EXPECT_NEAR(balance_loss(c.config, c.input(), scope, 0.01), 0.0115, 1e-8);
  // even use of k of E experts: 1
  c.config = RouterConfig::mixtral(4, 2);
  c.logits = {9, 9, 0, 0, 0, 0, 9, 9};
  EXPECT_NEAR(balance_loss(c.config, c.input(), count_scope(c.config, c.input()), 1.0), 1.0, 1e-6);
  // all tokens and all mass on one expert: E
  c.config = RouterConfig::switch_transformer(4);
  c.logits = {90, 0, 0, 0, 90, 0, 0, 0};
  EXPECT_NEAR(balance_loss(c.config, c.input(), count_scope(c.config, c.input()), 1.0), 4.0, 1e-6);
}

TEST(BalanceLoss, CountsWithoutBiasAndGroups) {
  Case c;
  c.config = RouterConfig::deepseek_v3(8, 2);
  c.config.groups = 4;
  c.config.groups_kept = 1;
  c.logits = {3, 0, 2, 0, 1, 0, 0, 0};
  c.bias = {-9, -9, -9, -9, -9, -9, 0, 0};
  const LossScope scope = count_scope(c.config, c.input());
  EXPECT_THAT(scope.selections, ElementsAre(1, 0, 1, 0, 0, 0, 0, 0));
}

TEST(BalanceLoss, MatchesTheDefinitionAndItsDifferences) {
  for (std::uint64_t seed = 1; seed <= 120; ++seed) {
    const Case c = random_case(seed);
    SCOPED_TRACE(c.describe());
    const Sets sets = random_sets(c, seed % 3 == 0 ? 1 : 1 + static_cast<std::int64_t>(seed % 5));
    const LossScope scope = count_scope(c.config, c.input(), sets.count, sets.of);
    LossScope plain = scope;  // counted by the oracle's search
    std::ranges::fill(plain.selections, 0);
    const Rows rows = rows_of(c);
    for (std::size_t t = 0; t < rows.size(); ++t) {
      for (const std::int64_t e : largest(rows[t], c.config.k)) {
        ++plain.selections[static_cast<std::size_t>(sets.of[t] * c.config.experts + e)];
      }
    }
    ASSERT_EQ(scope.selections, plain.selections);
    std::vector<float> gradient(c.logits.size(), 1.0F);
    const double alpha = 0.5;
    const double loss = balance_loss(c.config, c.input(), scope, alpha, gradient, sets.of);
    ASSERT_NEAR(loss, oracle_balance(c, rows, sets, alpha, scope), 1e-6 * std::max(1.0, loss));
    if (seed > 40) continue;  // slow
    expect_differences(rows, gradient, 1e-6, [&](const Rows& moved) {
      return oracle_balance(c, moved, sets, alpha, scope);
    });
  }
}

/// The tokens of a case on `ranks` ranks, uneven, some without any.
std::vector<Case> split(const Case& c, std::int64_t ranks) {
  std::vector<Case> parts(static_cast<std::size_t>(ranks), c);
  std::int64_t token = 0;
  for (std::int64_t r = 0; r < ranks; ++r) {
    Case& part = parts[static_cast<std::size_t>(r)];
    const std::int64_t until = r + 1 == ranks ? c.tokens : c.tokens * r / ranks;
    part.tokens = until - token;
    part.logits.assign(c.logits.begin() + token * c.config.experts,
                       c.logits.begin() + until * c.config.experts);
    token = until;
  }
  return parts;
}

TEST(BalanceLoss, PartsOfRanksSumToTheGlobalLoss) {
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    const Case c = random_case(seed);
    const std::int64_t ranks = 1 + static_cast<std::int64_t>(seed % 4);
    SCOPED_TRACE(c.describe() + " on ranks " + std::to_string(ranks));
    LossScope global =
        count_scope(c.config, RouterInput{.logits = {}, .bias = c.bias, .padding = {}});
    const auto parts = split(c, ranks);
    for (const Case& part : parts) global.add(count_scope(c.config, part.input()));
    const LossScope whole = count_scope(c.config, c.input());
    ASSERT_EQ(global.selections, whole.selections);
    ASSERT_EQ(global.tokens, whole.tokens);
    std::vector<float> one(c.logits.size());
    const double loss = balance_loss(c.config, c.input(), whole, 1.0, one);
    const double z = z_loss(c.config, c.input(), whole.tokens[0], 1e-3, one);
    double sum = 0;
    double z_sum = 0;
    std::vector<float> joined;
    for (const Case& part : parts) {
      std::vector<float> gradient(part.logits.size());
      sum += balance_loss(c.config, part.input(), global, 1.0, gradient);
      z_sum += z_loss(c.config, part.input(), global.tokens[0], 1e-3, gradient);
      joined.insert(joined.end(), gradient.begin(), gradient.end());
    }
    EXPECT_NEAR(sum, loss, 1e-12 * loss);
    EXPECT_NEAR(z_sum, z, 1e-12 * z);
    EXPECT_EQ(joined, one);  // bit by bit: gradients need not be scaled by ranks
  }
}

TEST(ZLoss, MatchesTheDefinitionAndItsDifferences) {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    const Case c = random_case(seed);
    SCOPED_TRACE(c.describe());
    std::vector<float> gradient(c.logits.size(), 1.0F);
    const double loss = z_loss(c.config, c.input(), c.tokens, 0.1, gradient);
    const Rows rows = rows_of(c);
    ASSERT_NEAR(loss, oracle_z(rows, 0.1), 1e-6 * std::max(1.0, loss));
    expect_differences(rows, gradient, 1e-6,
                       [](const Rows& moved) { return oracle_z(moved, 0.1); });
  }
}

TEST(LossCorner, B_WithoutTokensAllIsZeroAndNothingIsDivided) {
  const RouterConfig config = RouterConfig::deepseek_v3();
  const RouterInput none;
  const LossScope scope = count_scope(config, none);
  EXPECT_THAT(scope.selections, Each(0));
  EXPECT_EQ(balance_loss(config, none, scope, 1.0), 0.0);
  EXPECT_EQ(z_loss(config, none, 0, 1.0), 0.0);
  // an empty sequence beside a full one leaves the mean over sequences that are there
  const Case c = two_experts({0.9F, 0.8F, 0.3F, 0.6F});
  const std::vector<std::int32_t> all_in_one{1, 1, 1, 1};
  const LossScope two = count_scope(c.config, c.input(), 2, all_in_one);
  EXPECT_NEAR(balance_loss(c.config, c.input(), two, 1.0, {}, all_in_one), 1.15, 1e-6);
}

TEST(LossCorner, E_L_BadTokensAndPaddingAreLeftOut) {
  constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  Case c = two_experts({0.9F, 0.8F, 0.3F, 0.6F});
  std::vector<float> clean(c.logits.size());
  const double loss = balance_loss(c.config, c.input(), count_scope(c.config, c.input()), 1, clean);
  const double z = z_loss(c.config, c.input(), 4, 1, clean);
  c.logits.insert(c.logits.end(), {kNaN, 0, kInfinity, 0, -kInfinity, -kInfinity, 7, 8});
  const std::vector<std::uint8_t> padding{0, 0, 0, 0, 0, 0, 0, 1};
  const RouterInput input{.logits = c.logits, .bias = {}, .padding = padding};
  const LossScope scope = count_scope(c.config, input);
  EXPECT_THAT(scope.selections, ElementsAre(3, 1));
  EXPECT_THAT(scope.tokens, ElementsAre(4));
  std::vector<float> gradient(c.logits.size());
  EXPECT_EQ(balance_loss(c.config, input, scope, 1, gradient), loss);
  EXPECT_EQ(z_loss(c.config, input, 4, 1, gradient), z);
  EXPECT_TRUE(std::equal(clean.begin(), clean.end(), gradient.begin()));
  EXPECT_THAT(std::span(gradient).subspan(8), Each(0.0F));
}

TEST(LossCorner, AMaskedExpertHasNoShare) {
  Case c = two_experts({0.9F});
  c.logits[1] = -std::numeric_limits<float>::infinity();
  std::vector<float> gradient(2);
  EXPECT_NEAR(balance_loss(c.config, c.input(), count_scope(c.config, c.input()), 1, gradient), 2,
              1e-6);
  EXPECT_THAT(gradient, Each(0.0F));
}

TEST(Losses, WithRoomASecondCallAllocatesNothing) {
  const Case c = random_case(4);
  LossScope scope;
  LossRoom room;
  std::vector<float> first(c.logits.size());
  std::vector<float> second(c.logits.size());
  count_scope(c.config, c.input(), 1, {}, scope, room);
  const double loss = balance_loss(c.config, c.input(), scope, 1, first, {}, &room);
  z_loss(c.config, c.input(), c.tokens, 1, first, &room);
  const auto* shares = room.shares.data();
  const auto* counts = room.counts.data();
  const auto* order = room.order.data();
  const auto* selections = scope.selections.data();
  count_scope(c.config, c.input(), 1, {}, scope, room);
  EXPECT_EQ(balance_loss(c.config, c.input(), scope, 1, second, {}, &room), loss);
  z_loss(c.config, c.input(), c.tokens, 1, second, &room);
  EXPECT_EQ(room.shares.data(), shares);
  EXPECT_EQ(room.counts.data(), counts);
  EXPECT_EQ(room.order.data(), order);
  EXPECT_EQ(scope.selections.data(), selections);
  EXPECT_EQ(first, second);
  EXPECT_EQ(scope.selections, count_scope(c.config, c.input()).selections);
}

TEST(Losses, RefuseWhatDoesNotFit) {
  const Case c = two_experts({0.9F, 0.8F});
  const LossScope scope = count_scope(c.config, c.input());
  std::vector<float> small(3);
  EXPECT_THROW(balance_loss(c.config, c.input(), scope, 1, small), InvalidArgument);
  EXPECT_THROW(z_loss(c.config, c.input(), 2, 1, small), InvalidArgument);
  const std::vector<std::int32_t> far{0, 1};
  EXPECT_THROW(count_scope(c.config, c.input(), 1, far), InvalidArgument);
  EXPECT_THROW(count_scope(c.config, c.input(), 1, std::span(far).first(1)), InvalidArgument);
  LossScope other = count_scope(RouterConfig::mixtral(4), RouterInput{});
  EXPECT_THROW(other.add(scope), InvalidArgument);
  try {
    balance_loss(c.config, c.input(), other, 1);
    FAIL();
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("1 sets and 4 experts"));
  }
}

}  // namespace
}  // namespace annulus::moe::testing
