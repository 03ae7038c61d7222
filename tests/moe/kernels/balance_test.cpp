// Losses, capacity, bias and noise against moe/losses.cpp, capacity.cpp and router_balance.cpp:
// counts, drops and noise to the bit, losses and their gradients within rounding.
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/launches.h"
#include "tests/moe/oracle.h"
#include "tests/support/random.h"

#include <annulus/moe.h>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using moe::testing::Case;
using moe::testing::random_case;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Sets {
  std::int64_t count = 1;
  std::vector<std::int32_t> of{};
};

moe::cuda::LossParams params_of(const Case& c, const std::vector<std::uint8_t>& padding,
                                const Sets& sets) {
  moe::cuda::LossParams p{.route = moe::cuda::route_params(c.config)};
  p.route.tokens = c.tokens;
  p.route.logits = c.logits.data();
  p.route.padding = padding.empty() ? nullptr : padding.data();
  p.sets = sets.count;
  p.set_of = sets.of.empty() ? nullptr : sets.of.data();
  return p;
}

std::vector<std::int64_t> words_of(const moe::LossScope& scope) {
  std::vector<std::int64_t> words = scope.selections;
  words.insert(words.end(), scope.tokens.begin(), scope.tokens.end());
  return words;
}

void expect_near(double got, double want, const char* what) {
  EXPECT_NEAR(got, want, 1e-6 * std::max(1.0, std::abs(want))) << what;
}

/// Counts of this case as the host has them; twice as many in the scope of all ranks.
void expect_losses(const Case& c, const std::vector<std::uint8_t>& padding, const Sets& sets,
                   int each) {
  const moe::RouterInput input{.logits = c.logits, .bias = c.bias, .padding = padding};
  moe::LossScope scope = moe::count_scope(c.config, input, sets.count, sets.of);
  moe::cuda::LossParams p = params_of(c, padding, sets);
  std::vector<std::int64_t> counts(words_of(scope).size(), 0);
  p.counts = counts.data();
  launch_count_losses(p, each, c.seed);
  ASSERT_EQ(counts, words_of(scope));
  scope.add(moe::LossScope(scope));
  counts = words_of(scope);
  p.counts = counts.data();
  std::int64_t tokens = 0, used = 0;
  for (const std::int64_t n : scope.tokens) tokens += n;
  for (const std::int64_t n : scope.tokens) used += n > 0 ? 1 : 0;
  const double alpha = 0.7, beta = 0.3;
  std::vector<float> want(c.logits.size(), 0.25F), got = want;
  const double balance = moe::balance_loss(c.config, input, scope, alpha, want, sets.of);
  const double z = moe::z_loss(c.config, input, tokens, beta, want);
  std::vector<double> terms(at(2 * c.tokens + 1), kNan), sums(2, kNan);
  p.alpha = used > 0 ? alpha / static_cast<double>(used) : 0.0;
  p.beta = tokens > 0 ? beta / static_cast<double>(tokens) : 0.0;
  p.terms = terms.data();
  p.sums = sums.data();
  launch_add_losses(p, each, c.seed + 1);
  expect_near(sums[0], balance, "balance");
  expect_near(sums[1], z, "z");
  p.terms = p.sums = nullptr;
  p.dlogits = got.data();
  launch_add_losses(p, each, c.seed + 2);
  for (std::size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], 2e-6F) << i;
}

TEST(MoeKernelsBalance, LossesAndTheirGradientsAreTheHosts) {
  std::mt19937_64 generator(5);
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    Case c = random_case(seed);
    SCOPED_TRACE(c.describe());
    Sets sets{.count = 1 + static_cast<std::int64_t>(seed % 3)};
    std::vector<std::uint8_t> padding;
    for (std::int64_t t = 0; t < c.tokens; ++t) {
      if (seed % 3 != 0) sets.of.push_back(static_cast<std::int32_t>(generator() % at(sets.count)));
      if (seed % 4 == 1) padding.push_back(generator() % 4 == 0 ? 1 : 0);
    }
    if (c.tokens > 2) c.logits[at(c.config.experts)] = std::numeric_limits<float>::quiet_NaN();
    if (c.tokens > 3) c.logits[at(2 * c.config.experts)] = std::numeric_limits<float>::infinity();
    const int each = c.config.experts <= 32    ? 1
                     : c.config.experts <= 128 ? 4
                     : c.config.experts <= 256 ? 8
                                               : 16;
    expect_losses(c, padding, sets, each);
    expect_losses(c, padding, sets, 16);
  }
}

TEST(MoeKernelsBalance, LossesWithoutTokensAreZero) {
  Case c = random_case(3);
  c.tokens = 0;
  c.logits.clear();
  expect_losses(c, {}, {}, 16);
}

moe::Routing random_routing(std::int64_t tokens, std::int64_t k, std::int64_t experts,
                            std::mt19937_64& generator) {
  moe::Routing r{.tokens = tokens, .k = k, .experts = experts};
  std::vector<std::int32_t> order;
  for (std::int32_t e = 0; e < experts; ++e) order.push_back(e);
  for (std::int64_t t = 0; t < tokens; ++t) {
    // The first experts are the favourites.
    std::shuffle(order.begin() + (t % 2 == 0 ? 1 : 0), order.end(), generator);
    for (std::int64_t slot = 0; slot < k; ++slot) {
      const bool none = random_between(generator, 0, 8) == 0;
      r.indices.push_back(none ? -1 : order[at(slot)]);
      // Few values, so that there are ties; 1e-3 apart, so that bytes below the first decide.
      const auto step = static_cast<float>(random_between(generator, 0, 5));
      r.weights.push_back(none ? 0.0F : 0.5F + 1e-3F * step);
    }
  }
  return r;
}

void expect_drops(const moe::Routing& r, const moe::Capacity& capacity) {
  SCOPED_TRACE(std::to_string(r.tokens) + " tokens, factor " + std::to_string(capacity.factor));
  moe::Routing want;
  const std::int64_t dropped = moe::apply_capacity(capacity, r, want);
  std::vector<std::int32_t> kept(r.indices.size(), -77),
      room(at(std::max<std::int64_t>(1, r.experts * r.tokens)));
  std::vector<float> kept_weights(r.indices.size(), -77.0F);
  std::int64_t count = 5;
  launch_drop({.tokens = r.tokens,
               .k = static_cast<std::int32_t>(r.k),
               .experts = static_cast<std::int32_t>(r.experts),
               .most = moe::capacity_of(capacity, r),
               .policy = capacity.policy,
               .indices = r.indices.data(),
               .weights = r.weights.data(),
               .kept = kept.data(),
               .kept_weights = kept_weights.data(),
               .room = room.data(),
               .dropped = &count},
              static_cast<std::uint64_t>(r.tokens));
  EXPECT_EQ(kept, want.indices);
  EXPECT_EQ(kept_weights, want.weights);
  EXPECT_EQ(count - 5, dropped);
}

TEST(MoeKernelsBalance, DropsWhatTheHostDrops) {
  std::mt19937_64 generator(11);
  for (const auto policy : {moe::DropPolicy::probability, moe::DropPolicy::position}) {
    for (const double factor : {0.1, 0.5, 1.0, 3.0}) {
      expect_drops(random_routing(37, 3, 7, generator), {factor, policy});
      expect_drops(random_routing(300, 2, 5, generator),
                   {factor, policy});  // two rounds of a block
      expect_drops(random_routing(1, 4, 9, generator), {factor, policy});
    }
  }
  moe::Routing one = random_routing(600, 1, 3, generator);
  for (std::size_t i = 0; i < one.indices.size(); ++i) {
    one.indices[i] = 1;
    one.weights[i] = i % 7 == 0 ? 0.75F : 0.5F;
  }
  expect_drops(one, {0.9, moe::DropPolicy::probability});
  for (float& w : one.weights) w = 0.5F;  // nothing but ties
  expect_drops(one, {0.9, moe::DropPolicy::probability});
}

TEST(MoeKernelsBalance, NoiseHasTheHostsBits) {
  constexpr std::int64_t kTokens = 5, kHidden = 301, kStride = 310;
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const auto values = random_normal(kTokens * kStride, 21);
    std::vector<std::byte> from(at(kTokens * kStride * size_of(dtype)));
    for (std::int64_t i = 0; i < kTokens * kStride; ++i) {
      store_f64(from.data(), dtype, i, values[at(i)]);
    }
    std::vector<float> want;
    for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
      const std::int64_t source = i / kHidden * kStride + i % kHidden;
      want.push_back(static_cast<float>(load_f64(from.data(), dtype, source)));
    }
    moe::jitter(want, kHidden, 0.3F, 99, 1000);
    for (float& w : want) w = static_cast<float>(rounded_to(dtype, static_cast<double>(w)));
    std::vector<std::byte> to(at(kTokens * kHidden * size_of(dtype)), std::byte{0xff});
    moe::cuda::JitterParams p{.dtype = dtype,
                              .tokens = kTokens,
                              .hidden = kHidden,
                              .amount = 0.3F,
                              .seed = 99,
                              .first_token = 1000,
                              .from = from.data(),
                              .from_stride = kStride,
                              .to = to.data()};
    launch_jitter(p, 1);
    for (std::int64_t i = 0; i < kTokens * kHidden; ++i) {
      ASSERT_EQ(load_f64(to.data(), dtype, i), static_cast<double>(want[at(i)])) << i;
    }
    if (dtype != DType::f32) continue;
    std::vector<float> sums(at(kTokens * kHidden), 3.0F);
    p.to = sums.data();
    p.add = true;
    launch_jitter(p, 2);
    for (std::size_t i = 0; i < sums.size(); ++i) ASSERT_EQ(sums[i], 3.0F + want[i]) << i;
  }
}

TEST(MoeKernelsBalance, BiasMovesAsTheHosts) {
  const std::vector<std::int64_t> counts{4, 0, 2, 2, 3, 1, 2};  // mean 2
  std::vector<float> want{0, 1, 2, 3, 4, 5, 6}, got = want;
  moe::update_bias(counts, 0.125F, want);
  launch_update_bias({.experts = 7, .step = 0.125F, .counts = counts.data(), .bias = got.data()});
  EXPECT_EQ(got, want);
  EXPECT_EQ(got[0], -0.125F);
  EXPECT_EQ(got[2], 2.0F);
}

}  // namespace
}  // namespace annulus::testing
