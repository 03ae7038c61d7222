#include "launch/bench/moe/source.h"
#include "launch/options/sources.h"
#include "launch/request/moe.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace annulus::launch::test {
namespace {

using ::testing::HasSubstr;

Settings with(std::vector<std::string> words) {
  words.insert(words.begin(),
               {"--op", "moe", "--seq", "640", "--hidden", "512", "--experts", "12"});
  Settings settings;
  read_command_line(words, settings);
  return settings;
}

TEST(MoeRequest, TakesEveryKey) {
  const MoeRequest r = moe_request_of(
      with({"--top-k",         "3",       "--expert-ffn", "100",    "--shared-experts",  "2",
            "--shared-ffn",    "50",      "--activation", "gelu",   "--dtype",           "bf16",
            "--expert-degree", "2",       "--dispatch",   "tokens", "--receive-factor",  "1.5",
            "--recompute",     "hidden",  "--routing",    "zipf",   "--capacity-factor", "1.25",
            "--drop-policy",   "position"}),
      4, 3);
  EXPECT_EQ(r.tokens, 640);
  EXPECT_EQ(r.routing, RoutingKind::zipf);
  EXPECT_EQ(r.config.hidden, 512);
  EXPECT_EQ(r.config.ffn, 100);
  EXPECT_EQ(r.config.shared_ffn, 100);
  EXPECT_EQ(r.config.activation, moe::Activation::gelu);
  EXPECT_EQ(r.config.dtype, DType::bf16);
  EXPECT_EQ(r.config.experts, 12);
  EXPECT_EQ(r.config.k, 3);
  EXPECT_EQ(r.config.capacity.factor, 1.25);
  EXPECT_EQ(r.config.capacity.policy, moe::DropPolicy::position);
  EXPECT_FALSE(r.config.router);
  EXPECT_EQ(r.options.expert_degree, 2);
  EXPECT_EQ(r.options.capacity_factor, 1.5);
  EXPECT_EQ(r.options.dispatch, moe::Dispatch::tokens);
  EXPECT_EQ(r.options.recompute, moe::Recompute::hidden);
  EXPECT_EQ(r.options.threads, 3);
}

TEST(MoeRequest, EachKindOfLayerHasItsFfn) {
  const std::vector<KindRequest> kinds =
      kind_requests_of(with({"--top-k", "3", "--expert-ffn", "100", "--ffn", "300", "--layers", "6",
                             "--layer-kinds", "dense:2,moe:3,dense:1", "--expert-degree", "2",
                             "--routing", "router", "--router", "mixtral"}),
                       4, 1);
  ASSERT_EQ(kinds.size(), 2U);
  EXPECT_EQ(kinds[0].kind, LayerKind::dense);
  EXPECT_EQ(kinds[0].layers, 3);
  EXPECT_EQ(kinds[0].ffn.routing, RoutingKind::none);
  EXPECT_EQ(kinds[0].ffn.config.shared_ffn, 300);
  EXPECT_FALSE(kinds[0].ffn.config.router);
  EXPECT_EQ(kinds[0].ffn.options.expert_degree, 1);
  EXPECT_EQ(kinds[1].kind, LayerKind::moe);
  EXPECT_EQ(kinds[1].layers, 3);
  EXPECT_EQ(kinds[1].ffn.options.expert_degree, 2);
  EXPECT_TRUE(kinds[1].ffn.config.router);
  const MoeSource source(kinds[0].ffn, 1);
  EXPECT_EQ(source.routing(RoutingKind::none, {0, 5}).indices, (std::vector<std::int32_t>{-1, -1}));
  const auto alike =
      kind_requests_of(with({"--top-k", "3", "--expert-ffn", "100", "--layers", "6"}), 1, 1);
  ASSERT_EQ(alike.size(), 1U);
  EXPECT_EQ(alike[0].layers, 6);
}

TEST(MoeRequest, ShrinkDividesWidthsDownToSixteen) {
  const MoeRequest r =
      moe_request_of(with({"--top-k", "2", "--expert-ffn", "100", "--shrink", "16"}), 1, 1);
  EXPECT_EQ(r.tokens, 40);
  EXPECT_EQ(r.config.hidden, 32);
  EXPECT_EQ(r.config.ffn, 16);
  EXPECT_EQ(r.config.experts, 12);
}

TEST(MoeRequest, RouterIsFittedToTheExperts) {
  const MoeRequest r =
      moe_request_of(with({"--top-k", "2", "--expert-ffn", "8", "--routing", "router", "--router",
                           "deepseek_v3", "--groups", "6", "--groups-kept", "9"}),
                     1, 1);
  ASSERT_TRUE(r.config.router);
  EXPECT_EQ(r.config.router->groups, 6);
  EXPECT_EQ(r.config.router->groups_kept, 6);
  EXPECT_EQ(r.config.router->group_top, 2);
  EXPECT_THAT(refusal([] {
                moe_request_of(with({"--top-k", "2", "--expert-ffn", "8", "--routing", "router",
                                     "--router", "deepseek_v3", "--groups", "5"}),
                               1, 1);
              }),
              HasSubstr("--groups: '5'"));
}

TEST(MoeSource, RoutingsAreWhatTheirNamesSay) {
  MoeRequest r;
  r.config.hidden = 4;
  r.config.ffn = 4;
  r.config.experts = 12;
  r.config.k = 3;
  const MoeSource source(r, 5);
  std::vector<std::int64_t> tokens(400);
  for (std::size_t t = 0; t < tokens.size(); ++t) tokens[t] = static_cast<std::int64_t>(t);
  const auto counts = [&](RoutingKind kind) {
    const moe::Routing routing = source.routing(kind, tokens);
    moe::check(routing);  // different experts
    std::vector<std::int64_t> n;
    moe::count_selections(routing, n);
    return n;
  };
  EXPECT_EQ(counts(RoutingKind::balanced), std::vector<std::int64_t>(12, 100));
  EXPECT_EQ(counts(RoutingKind::one_hot)[2], 400);
  EXPECT_EQ(counts(RoutingKind::one_hot)[3], 0);
  const auto uniform = counts(RoutingKind::uniform);
  EXPECT_LT(std::ranges::max(uniform), 150);
  EXPECT_GT(std::ranges::min(uniform), 60);
  const auto zipf = counts(RoutingKind::zipf);
  EXPECT_GT(zipf[0], 250);
  EXPECT_LT(zipf[11], 80);
  // Any rank makes its part of the same routing.
  const moe::Routing all = source.routing(RoutingKind::zipf, tokens);
  const moe::Routing one = source.routing(RoutingKind::zipf, {399});
  EXPECT_EQ(one.indices, std::vector<std::int32_t>(all.indices.end() - 3, all.indices.end()));
}

}  // namespace
}  // namespace annulus::launch::test
