// What a report finds wrong with itself, and how it shows counter readings.
#include <annulus/cost.h>
#include <annulus/counters.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <string>

namespace annulus {
namespace {

using Json = nlohmann::json;
using Outcome = CostCheck::Outcome;
using testing::HasSubstr;
using testing::Not;

/// Two ranks that executed 1000 and 1200 times what the mask needs at least.
CostReport counted() {
  CostRequest request;
  request.heads = request.heads_kv = 4;
  request.seq = 80;
  request.sp = 2;
  CostReport report = price(request);
  report.executed.flops_rank_layer = {1'000'000'000, 1'200'000'000};
  report.planned = report.executed;
  report.hardware.flops_rank_layer = report.executed.flops_rank_layer;
  report.hardware.hbm_bytes_rank_layer = {70, 50};
  report.hardware.memory_efficiency = 3.5;
  report.hardware.source = "a counter";
  report.hardware_unavailable.clear();
  return report;
}

CostCheck find(const CostReport& report, const std::string& words) {
  for (const CostCheck& check : self_checks(report)) {
    if (check.claim.find(words) != std::string::npos) return check;
  }
  return {"no such check", Outcome::failed, words};
}

TEST(SelfChecks, PassWhereAllCountsAgree) {
  const auto checks = self_checks(counted());
  ASSERT_EQ(checks.size(), 4U);
  for (const CostCheck& check : checks) EXPECT_EQ(check.outcome, Outcome::passed) << check.claim;
  EXPECT_THAT(to_text(counted()), Not(HasSubstr("WARNING")));
}

TEST(SelfChecks, HardwareMayDifferByOnePercentAndNoMore) {
  CostReport report = counted();
  std::int64_t& read = report.hardware.flops_rank_layer[1];
  for (const std::int64_t close : {1'188'000'000, 1'212'000'000}) {
    read = close;
    EXPECT_EQ(find(report, "hardware forward").outcome, Outcome::passed) << close;
  }
  for (const std::int64_t far : {1'187'999'999, 1'212'000'001}) {
    read = far;
    EXPECT_EQ(find(report, "hardware forward").outcome, Outcome::failed) << far;
  }
  EXPECT_EQ(find(report, "hardware forward").detail,
            "rank 1: hardware 1212000001 against executed 1200000000 FLOP (+1.00 %).");
  EXPECT_THAT(to_text(report), HasSubstr("WARNING:"));
}

TEST(SelfChecks, ExecutedAboveTheTilesIsFound) {
  CostReport report = counted();
  report.executed.flops_rank_layer[0] += 1;
  const CostCheck check = find(report, "executed forward <= tile bound");
  EXPECT_EQ(check.outcome, Outcome::failed);
  EXPECT_THAT(check.detail, HasSubstr("rank 0: 1000000001 > 1000000000"));
  report.executed.flops_rank_layer[0] -= 2;
  EXPECT_EQ(find(report, "executed forward <= tile bound").outcome, Outcome::passed);
}

TEST(SelfChecks, ExecutedBelowExactIsFound) {
  CostReport report = counted();
  report.executed.flops_rank_layer = {1, 1};
  EXPECT_EQ(find(report, "executed forward >= exact").outcome, Outcome::failed);
}

TEST(SelfChecks, BackwardIsCheckedLikeForward) {
  CostReport report = counted();
  report.executed.backward_flops_rank_layer = {4'000'000'000, 4'000'000'000};
  report.planned.backward_flops_rank_layer = {4'000'000'000, 3'999'999'999};
  report.hardware.backward_flops_rank_layer = {4'100'000'000, 4'000'000'000};
  EXPECT_THAT(find(report, "executed backward <= tile bound").detail, HasSubstr("rank 1"));
  EXPECT_THAT(find(report, "hardware backward").detail, HasSubstr("(+2.50 %)"));
}

TEST(SelfChecks, KernelsWithoutTensorCoresAreNotCompared) {
  CostReport report = counted();
  report.hardware.flops_rank_layer = {0, 0};
  EXPECT_EQ(find(report, "hardware forward").outcome, Outcome::not_comparable);
  report.hardware.flops_rank_layer = {0, 1'200'000'000};  // one rank went another way: a defect
  EXPECT_THAT(find(report, "hardware forward").detail, HasSubstr("(-100.00 %)"));
}

TEST(SelfChecks, ListsOfDifferentRanksAreNotCompared) {
  CostReport report = counted();
  report.hardware.flops_rank_layer.pop_back();
  EXPECT_EQ(find(report, "hardware forward").outcome, Outcome::not_comparable);
}

TEST(Hardware, IsShownInTextAndJson) {
  const std::string text = to_text(counted());
  EXPECT_THAT(text, testing::ContainsRegex("hardware +rank +FLOP +forward +1000000000"));
  EXPECT_THAT(text, testing::ContainsRegex("hardware hbm +rank +B +forward +50"));
  EXPECT_THAT(text, HasSubstr("efficiency 3.50"));
  EXPECT_THAT(text, Not(HasSubstr("unavailable")));
  const Json json = Json::parse(to_json(counted()));
  EXPECT_EQ(json["hardware"]["flops_rank_layer"], Json({1'000'000'000, 1'200'000'000}));
  EXPECT_EQ(json["hardware"]["hbm_bytes"], 120);
  EXPECT_DOUBLE_EQ(json["hardware"]["memory_efficiency"].get<double>(), 3.5);
  EXPECT_FALSE(json["hardware"].contains("backward_flops_rank_layer"));
  EXPECT_EQ(json["checks"].size(), 4U);
  EXPECT_EQ(json["checks"][3]["outcome"], "passed");
}

TEST(Hardware, CountersSayWhyTheyCannotCountHere) {
  // On a machine with a GPU whose counters may be read they count: counters_gpu tests that.
  HardwareCounters counters(0, DType::bf16);
  if (counters.unavailable().empty()) GTEST_SKIP() << counters.source();
  EXPECT_GT(counters.unavailable().size(), 10U);
  int calls = 0;
  const HardwareReadings& readings = counters.measure(nullptr, [&] { ++calls; });
  EXPECT_EQ(calls, 1);
  EXPECT_EQ(readings.unavailable, counters.unavailable());
  EXPECT_FALSE(readings.tensor_ops.has_value());
  EXPECT_EQ(readings.dram_bytes(), 0);
}

}  // namespace
}  // namespace annulus
