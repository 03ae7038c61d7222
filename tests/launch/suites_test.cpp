// What the suites conclude from given figures; whole runs are in command_test.sh.
#include "launch/bench/suites/accounting.h"
#include "launch/bench/suites/classic.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace annulus::launch::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

/// Two points of a run whose ranks execute `executed` of the 1000 FLOPs of one rank alone.
AccountingRun run_of(const std::vector<std::int64_t>& exact,
                     const std::vector<std::int64_t>& executed) {
  AccountingRun run;
  run.problem =
      resolved({.seq = 80, .seq_kv = {}, .heads_kv = {}, .head_dim_v = {}, .softmax_scale = {}});
  run.hardware_threads = 2;
  const auto sp = static_cast<int>(exact.size());
  run.points = {{.sp = 1,
                 .forward = {.median_s = 4},
                 .cpu_s = 4,
                 .original_macs = 1000,
                 .corrected_macs = 1000,
                 .exact_flops = {1000},
                 .executed_flops = {1000}},
                {.sp = sp,
                 .forward = {.median_s = 2.5},
                 .cpu_s = 1.1,
                 .original_macs = 1000 / sp,
                 .corrected_macs = 1000,
                 .exact_flops = exact,
                 .executed_flops = executed}};
  return run;
}

std::string verdict_text(const AccountingRun& run) {
  std::string text;
  for (const std::string& sentence : verdict(run)) text += sentence + "\n";
  return text;
}

TEST(AccountingSuite, ExactPredictsSpTimesBalance) {
  const AccountingSpeedup s = speedups(run_of({400, 200, 200, 200}, {440, 220, 210, 210})).back();
  EXPECT_DOUBLE_EQ(s.balance, 250.0 / 400);
  EXPECT_DOUBLE_EQ(s.exact, 4 * s.balance);
  EXPECT_DOUBLE_EQ(s.original, 4);
  EXPECT_DOUBLE_EQ(s.corrected, 1);
  EXPECT_DOUBLE_EQ(s.executed, 1000.0 / 440);
  EXPECT_DOUBLE_EQ(s.measured, 1.6);
}

TEST(AccountingSuite, VerdictNamesTheNearestAccounting) {
  EXPECT_THAT(verdict_text(run_of({400, 200, 200, 200}, {410, 210, 210, 210})),
              HasSubstr("Nearest is exact"));
  EXPECT_THAT(verdict_text(run_of({900, 900, 900, 900}, {1000, 1000, 1000, 1000})),
              HasSubstr("Nearest is corrected"));
}

TEST(AccountingSuite, VerdictSaysWhatTheClockCannotShow) {
  AccountingRun run = run_of({250, 250, 250, 250}, {250, 250, 250, 250});
  EXPECT_THAT(verdict_text(run), HasSubstr("cannot show more than 2"));
  run.hardware_threads = 16;
  EXPECT_THAT(verdict_text(run), Not(HasSubstr("cannot show more")));
  EXPECT_THAT(verdict_text(run), Not(HasSubstr("Others were at work")));
  run.load_average = 12;
  EXPECT_THAT(verdict_text(run), HasSubstr("Others were at work"));
}

TEST(AccountingSuite, FewerFlopsThanTheMaskAsksForFail) {
  EXPECT_TRUE(report_of(run_of({250, 250, 250, 250}, {260, 250, 250, 250})).passed);
  EXPECT_FALSE(report_of(run_of({250, 250, 250, 250}, {249, 250, 250, 250})).passed);
}

TEST(AccountingSuite, JsonKeepsCountsAsIntegers) {
  const std::int64_t large = (std::int64_t{1} << 53) + 1;
  AccountingRun run = run_of({1, 1}, {1, 1});
  run.points[1].executed_flops = {large, large};
  const auto json = nlohmann::json::parse(report_of(run).json);
  EXPECT_EQ(json["schema"], "annulus.accounting/1");
  EXPECT_EQ(json["points"][1]["executed_flops_rank_layer"][0], large);
}

ClassicRow classic_row(std::int64_t batch, std::int64_t seq, const char* kernel,
                       std::int64_t materialized) {
  return {.shape = {batch, seq, 64},
          .kernel = kernel,
          .warmups = 10,
          .calls = 5,
          .mean_s = 1,
          .median_s = kernel == std::string("naive") ? 1.0 : 0.25,
          .counters = {.flops = 1, .materialized_bytes = materialized},
          .rel_err = 1e-7};
}

TEST(ClassicSuite, SavedBytesAreTwoSOverTwoSPlusD) {
  ClassicRun run;
  run.bound = 1e-5;
  run.rows = {classic_row(1, 512, "naive", 2 * 512 * 512 * 4), classic_row(1, 512, "flash2", 0),
              classic_row(2, 1024, "naive", std::int64_t{2} * 2 * 1024 * 1024 * 4),
              classic_row(2, 1024, "flash2", 0)};
  EXPECT_EQ(run.rows[0].memory_bytes(), 2228224);
  EXPECT_EQ(run.rows[1].memory_bytes(), 131072);
  EXPECT_EQ(run.rows[2].memory_bytes(), 17301504);
  EXPECT_EQ(run.rows[3].memory_bytes(), 524288);
  EXPECT_DOUBLE_EQ(saved(run, run.rows[1]), 1024.0 / 1088);
  EXPECT_DOUBLE_EQ(saved(run, run.rows[3]), 2048.0 / 2112);
  const SuiteReport report = report_of(run);
  EXPECT_THAT(report.text, HasSubstr("2,228,224"));
  EXPECT_THAT(report.text, HasSubstr("94.1 %"));
  EXPECT_THAT(report.text, HasSubstr("97.0 %"));
  EXPECT_EQ(nlohmann::json::parse(report.json)["rows"][1]["speedup_over_naive"], 4);
}

TEST(ClassicSuite, ErrorBeyondTheBoundFails) {
  ClassicRun run;
  run.bound = 1e-5;
  run.rows = {classic_row(1, 512, "flash2", 0)};
  EXPECT_TRUE(report_of(run).passed);
  run.rows[0].rel_err = 1e-3;
  EXPECT_FALSE(report_of(run).passed);
}

}  // namespace
}  // namespace annulus::launch::test
