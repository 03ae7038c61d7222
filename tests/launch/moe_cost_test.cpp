// The cost of a layer of experts; every number here was worked out by hand.
#include "launch/bench/moe/cost.h"
#include "launch/bench/moe/kinds.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace annulus::launch::test {
namespace {

using ::testing::Contains;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// 30 tokens, two of four experts each, on 4 ranks in two groups; two shared experts of 7.
MoeReport routed() {
  MoeReport r;
  r.world = 4;
  r.request.tokens = 30;
  r.request.shared_experts = 2;
  r.request.dense_ffn = 11;
  r.request.config = {.hidden = 5, .ffn = 3, .experts = 4, .k = 2, .shared_ffn = 14};
  r.request.config.router = moe::RouterConfig::mixtral(4, 2);
  r.request.options.expert_degree = 2;
  r.rank_rows = {20, 8, 17, 15};
  r.rank_tokens = {7, 8, 7, 8};
  // A row 6·5·3 = 90, a token 6·5·14 = 420 in shared experts and 2·5·4 = 40 in the router.
  r.forward_flops = {5020, 4400, 4750, 5030};
  r.backward_flops = {10040, 8800, 9500, 10060};
  r.forward_bytes = {100, 200, 300, 400};
  r.backward_bytes = {110, 210, 310, 410};
  r.backward = Timing{};
  return r;
}

TEST(MoeCost, ExactIsOfTheRowsThatTheRoutingMade) {
  const MoeCost cost = cost_of(routed());
  EXPECT_THAT(cost.exact, ElementsAre(5020, 4400, 4750, 5030));
  EXPECT_THAT(cost.backward_exact, ElementsAre(10040, 8800, 9500, 10060));
  MoeReport gelu = routed();
  gelu.request.config.activation = moe::Activation::gelu;
  gelu.request.config.shared_ffn = gelu.request.shared_experts = 0;
  gelu.request.config.router.reset();
  EXPECT_THAT(cost_of(gelu).exact, ElementsAre(1200, 480, 1020, 900));  // 4·5·3 = 60 a row
}

TEST(MoeCost, OriginalIsGenzsOfOneRank) {
  const MoeCost cost = cost_of(routed());
  // sp = 2: 15 tokens a rank, 15·2 // 4 = 7 an expert. Prefill: experts as wide as the dense FFN.
  EXPECT_EQ(cost.original.router_macs, 4 * 15 * 5);
  EXPECT_EQ(cost.original.expert_macs, 2 * 7 * 3 * 11 * 5);
  EXPECT_EQ(cost.original.shared_macs, 0);
  EXPECT_EQ(cost.original.ffn_macs(), 2610);
  EXPECT_EQ(cost.original_chunked.expert_macs, 2 * 7 * 3 * 3 * 5);
  EXPECT_EQ(cost.original_chunked.shared_macs, 15 * 3 * 14 * 5);
  EXPECT_EQ(cost.original_chunked.ffn_macs(), 4080);
  EXPECT_THAT(cost.reasons, Contains(HasSubstr("the dense FFN, 11 instead of 3")));
  EXPECT_THAT(cost.reasons, Contains(HasSubstr("every expert 7 rows, 30 // 4")));
}

TEST(MoeCost, ChecksThatNothingWasLeftOut) {
  const MoeCost good = cost_of(routed());
  ASSERT_EQ(good.checks.size(), 2U);
  EXPECT_EQ(good.checks[0].outcome, CostCheck::Outcome::passed);
  EXPECT_EQ(good.checks[1].outcome, CostCheck::Outcome::passed);
  EXPECT_THAT(good.reasons, Not(Contains(HasSubstr("> exact"))));
  MoeReport report = routed();
  report.backward_flops[2] = 9499;
  const CostCheck bad = cost_of(report).checks[1];
  EXPECT_EQ(bad.outcome, CostCheck::Outcome::failed);
  EXPECT_THAT(bad.detail, HasSubstr("rank 2: 9499 < 9500 FLOP"));
  EXPECT_THAT(cost_text(report), HasSubstr("WARNING:   not executed backward >= exact: rank 2"));
  report.backward.reset();  // it did not run
  EXPECT_EQ(cost_of(report).checks.size(), 1U);
}

TEST(MoeCost, SaysWhyMoreRan) {
  MoeReport report = routed();
  report.request.options.recompute = moe::Recompute::hidden;
  report.backward_flops[1] += 1;
  EXPECT_THAT(cost_of(report).reasons, Contains(HasSubstr("executed backward > exact: recompute")));
  report.rounds = 2;
  EXPECT_THAT(cost_of(report).reasons, Contains(HasSubstr("> exact: rows came in rounds")));
}

TEST(MoeCost, ImbalanceIsWithoutTheRoutersTime) {
  MoeReport report = routed();
  EXPECT_FALSE(report.forward_slowdown());
  report.forward = Timing{.median_s = 9};
  report.balanced_forward = Timing{.median_s = 2};
  EXPECT_EQ(report.forward_slowdown(), 4.5);
  report.kept_forward = Timing{.median_s = 6};
  EXPECT_EQ(report.forward_slowdown(), 3);
  report.backward = Timing{.median_s = 8};
  report.balanced_backward = Timing{.median_s = 4};
  EXPECT_EQ(report.backward_slowdown(), 2);
}

/// A dense FFN of 14: the shared experts alone.
MoeReport dense() {
  MoeReport r = routed();
  r.request.routing = RoutingKind::none;
  r.request.config = {.hidden = 5, .ffn = 16, .experts = 1, .k = 1, .shared_ffn = 14};
  r.request.shared_experts = 1;
  r.request.dense_ffn = 14;
  r.request.options.expert_degree = 1;
  r.request.policy = CostPolicy::legacy;
  r.rank_rows = {0, 0, 0, 0};
  r.forward_flops = {2940, 3360, 2940, 3360};  // 6·5·14 = 420 a token
  r.backward_flops = {5880, 6720, 5880, 6720};
  return r;
}

TEST(MoeCost, DenseLayersAreGenzsDenseLayers) {
  const MoeCost cost = cost_of(dense());
  EXPECT_THAT(cost.exact, ElementsAre(2940, 3360, 2940, 3360));
  EXPECT_EQ(cost.original.ffn_macs(), 30 / 4 * 3 * 14 * 5);
  EXPECT_EQ(cost.original_chunked.ffn_macs(), 1470);
  EXPECT_EQ(cost.mode, CostMode::corrected);  // of dense layers
}

TEST(MoeCost, ModelsAreSumsByCount) {
  std::vector<KindReport> kinds(2);
  kinds[0].kind = LayerKind::dense;
  kinds[0].layers = 3;
  kinds[0].ffn = dense();
  kinds[0].forward = Timing{.median_s = 0.5};
  kinds[1].layers = 58;
  kinds[1].ffn = routed();
  kinds[1].forward = Timing{.median_s = 2};
  kinds[1].backward = Timing{.median_s = 4};
  const ModelSums sums =
      sums_of(kinds, {.flops_rank_layer = {1, 2}, .backward_flops_rank_layer = {10, 20}});
  EXPECT_EQ(sums.layers, 61);
  EXPECT_EQ(sums.forward_s, 3 * 0.5 + 58 * 2);
  EXPECT_EQ(sums.backward_s, 58 * 4);
  EXPECT_EQ(sums.forward_flops, 61 * 3 + 3 * 12600 + 58 * 19200);
  EXPECT_EQ(sums.backward_flops, 61 * 30 + 3 * 25200 + 58 * 38400);
  EXPECT_EQ(sums.bytes_sent, 61 * (1000 + 1040));
}

TEST(MoeCost, JsonHasEveryAccountingAndThePolicy) {
  MoeReport report = routed();
  report.request.policy = CostPolicy::legacy;
  const auto json = nlohmann::json::parse(cost_json(report));
  EXPECT_EQ(json["policy"], "legacy");
  EXPECT_EQ(json["mode"], "original");  // of MoE layers
  EXPECT_EQ(json["original"]["ffn_macs_rank_layer"], 2610);
  EXPECT_EQ(json["original_chunked"]["shared_macs_rank_layer"], 3150);
  EXPECT_THAT(json["exact"]["flops_rank_layer"], ElementsAre(5020, 4400, 4750, 5030));
  EXPECT_THAT(json["executed"]["backward_flops_rank_layer"], ElementsAre(10040, 8800, 9500, 10060));
  EXPECT_THAT(json["bytes"]["sent_rank_layer"], ElementsAre(100, 200, 300, 400));
  EXPECT_THAT(json["bytes"]["backward_sent_rank_layer"], ElementsAre(110, 210, 310, 410));
  EXPECT_EQ(json["checks"].size(), 2U);
  const std::string text = cost_text(report);
  for (const char* number : {"2610", "4080", "19200", "38400", "1000", "1040", "legacy"}) {
    EXPECT_THAT(text, HasSubstr(number));
  }
}

}  // namespace
}  // namespace annulus::launch::test
