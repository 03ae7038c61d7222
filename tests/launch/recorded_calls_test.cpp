// What bench takes from recorded calls, when ranks open together, and rates over a GPU's peak.

#include "launch/bench/hold.h"
#include "tests/launch/small_report.h"

#include <gmock/gmock.h>
#include <nlohmann/json.hpp>

#include <array>
#include <vector>

namespace annulus::launch {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(Hold, RanksOfAMachineOpenAtOnce) {
  const std::vector<Ready> all{{1, 5.0}, {1, 5.00004}, {2, 900.0}, {1, 5.00001}};
  const double at = opening(all, 0);
  EXPECT_GT(at, 5.00004 + 100e-6);  // all have heard by then
  EXPECT_LT(at, 5.001);
  EXPECT_EQ(opening(all, 1), at);
  EXPECT_EQ(opening(all, 3), at);
  // Another machine's clock says nothing here.
  EXPECT_GT(opening(all, 2), 900.0);
  EXPECT_LT(opening(all, 2), 900.001);
}

TEST(Hold, NobodyWaitsForAClockThatIsWrongOrForItself) {
  const std::vector<Ready> apart{{1, 5.0}, {1, 3600.0}};
  EXPECT_EQ(opening(apart, 0), 5.0);
  const std::vector<Ready> alone{{1, 5.0}};
  EXPECT_EQ(opening(alone, 0), 5.0);
}

TEST(RecordedCalls, TheMedianOfTheLastCounts) {
  // The first are cold.
  const std::vector<double> seconds{9, 1, 1, 5, 3, 8, 4, 6};
  EXPECT_EQ(typical_call(seconds), 3U);
  EXPECT_EQ(typical_call(std::vector<double>{7}), 0U);
}

BenchReport report() {
  BenchReport r = small_report();
  r.exposed_s = 0.25;
  return r;
}

TEST(RecordedCalls, StandInTheReportAlsoWithoutATraceFile) {
  BenchReport r = report();
  r.exposed_source = "trace";
  r.recorded = TraceFigures{};
  r.recorded->forward_s = 0.0021;
  auto json = nlohmann::json::parse(to_json(r));
  EXPECT_FALSE(json.contains("trace"));
  EXPECT_EQ(json.at("comm").at("recorded").at("forward_call_s"), 0.0021);
  EXPECT_TRUE(json.at("comm").at("recorded").at("backward_call_s").is_null());
  EXPECT_EQ(json.at("comm").at("recorded").at("held"), true);
  EXPECT_EQ(json.at("timing").at("forward").at("median_s"), 0.002);  // of the timed calls
  EXPECT_THAT(to_text(r), HasSubstr("0.2500 s exposed in recorded calls"));
  EXPECT_THAT(to_text(r), Not(HasSubstr("trace      ")));
  r.recorded->file = "t.json";
  r.recorded->held = false;
  json = nlohmann::json::parse(to_json(r));
  EXPECT_EQ(json.at("trace").at("file"), "t.json");
  EXPECT_THAT(to_text(r), HasSubstr("did not fit into a stream's queue"));
  EXPECT_TRUE(nlohmann::json::parse(to_json(report())).at("comm").at("recorded").is_null());
}

constexpr DeviceSize kHopper{.multiprocessors = 132, .clock_hz = 1.83e9, .major = 9, .minor = 0};

TEST(Mfu, IsOverTheDataSheetOrTheSize) {
  EXPECT_EQ(matrix_peak("NVIDIA H200", kHopper, DType::bf16).tflops, 989.4);
  EXPECT_EQ(matrix_peak("NVIDIA H100 80GB HBM3", kHopper, DType::f16).tflops, 989.4);
  EXPECT_EQ(matrix_peak("NVIDIA H100 PCIe", kHopper, DType::bf16).tflops, 756.4);
  EXPECT_THAT(matrix_peak("NVIDIA H200", kHopper, DType::bf16).source, HasSubstr("data sheet"));
  // The data sheet's figure is this product.
  const MatrixPeak by_size = matrix_peak("some Hopper", kHopper, DType::bf16);
  EXPECT_NEAR(by_size.tflops, 989.4, 0.1);
  EXPECT_EQ(by_size.source, "132 multiprocessors x 1830 MHz x 4096 FLOPs a clock");
  const DeviceSize a100{.multiprocessors = 108, .clock_hz = 1.41e9, .major = 8, .minor = 0};
  EXPECT_NEAR(matrix_peak("some Ampere", a100, DType::bf16).tflops, 312, 0.2);
}

TEST(Mfu, SaysWhyThereIsNone) {
  const DeviceSize unknown{.multiprocessors = 10, .clock_hz = 1e9, .major = 7, .minor = 5};
  EXPECT_THAT(matrix_peak("old", unknown, DType::bf16).unavailable, HasSubstr("7.5"));
  EXPECT_THAT(matrix_peak("NVIDIA H200", kHopper, DType::f32).unavailable, HasSubstr("f32"));
  EXPECT_THAT(matrix_peak_of(-1, DType::bf16).unavailable, HasSubstr("CPU"));
  BenchReport r = report();
  r.peak = matrix_peak_of(-1, DType::bf16);
  r.forward_tflops_per_rank = 5;
  const auto json = nlohmann::json::parse(to_json(r)).at("throughput");
  EXPECT_TRUE(json.at("forward_mfu").is_null());
  EXPECT_TRUE(json.at("peak_tflops").is_null());
  EXPECT_THAT(std::string(json.at("mfu_unavailable")), HasSubstr("CPU"));
  EXPECT_THAT(to_text(r), HasSubstr("MFU        unavailable: "));
}

TEST(Mfu, StandsBesideTheRates) {
  BenchReport r = report();
  r.peak = matrix_peak("NVIDIA H200", kHopper, DType::bf16);
  r.forward_tflops_per_rank = 494.7;
  r.tflops_per_rank = 247.35;
  const auto json = nlohmann::json::parse(to_json(r)).at("throughput");
  EXPECT_NEAR(json.at("forward_mfu"), 0.5, 1e-12);
  EXPECT_TRUE(json.at("backward_mfu").is_null());
  EXPECT_NEAR(json.at("mfu"), 0.25, 1e-12);
  EXPECT_EQ(json.at("peak_tflops"), 989.4);
  EXPECT_TRUE(json.at("mfu_unavailable").is_null());
  EXPECT_THAT(to_text(r), HasSubstr("50.0 %\n"));
  EXPECT_THAT(to_text(r), HasSubstr("MFU        25.0 % of 989.4 TFLOP/s dense, data sheet"));
}

}  // namespace
}  // namespace annulus::launch
