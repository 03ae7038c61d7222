// Every point of tests/data/genz_latency.json, dense or of experts, every operator row of it, the
// 24 collective times, and every whole-model count of genz_attention.json.
#include "tests/cost/latency_goldens.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace annulus::test {
namespace {

constexpr double kRelative = 1e-9;

void expect_close(double value, double golden, const char* what) {
  EXPECT_LE(std::abs(value - golden), kRelative * std::abs(golden))
      << what << ": " << value << " against " << golden;
}

void expect_row(const OperatorRow& row, const Json& golden, Precision precision) {
  SCOPED_TRACE(row.name);
  const auto bytes = [&](std::int64_t elements) { return elements * bits_of(precision) / 8; };
  EXPECT_EQ(row.name, golden[0]);
  EXPECT_EQ(row.repeat, golden[9]);
  EXPECT_EQ(2 * row.macs, golden[10].get<std::int64_t>());
  EXPECT_EQ(bytes(row.input_elements), golden[11].get<std::int64_t>());
  EXPECT_EQ(bytes(row.weight_elements), golden[12].get<std::int64_t>());
  EXPECT_EQ(bytes(row.output_elements), golden[13].get<std::int64_t>());
  expect_close(row.compute_s * 1e3, golden[14], "compute");
  expect_close(row.memory_s * 1e3, golden[15], "memory");
  expect_close(row.comm_s * 1e3, golden[16], "communication");
  expect_close(row.latency_s() * 1e3, golden[17], "latency");
  const std::string bound = golden[18];
  const bool idle = golden[17] == 0.0;  // GenZ calls a row without time "Collective"
  EXPECT_EQ(row.bound(), idle                 ? Bound::none
                         : bound == "Compute" ? Bound::compute
                         : bound == "Memory"  ? Bound::memory
                                              : Bound::communication);
}

void expect_totals(const LatencyReport& report, const Json& point) {
  const Json& totals = point["totals"];
  expect_close(report.latency_s * 1e3, totals["latency_ms"], "latency");
  expect_close(report.attention_s * 1e3, totals["attn_latency_ms"], "attention");
  expect_close(report.linear_s * 1e3, totals["linear_latency_ms"], "linear");
  expect_close(report.comm_s * 1e3, totals["comm_latency_ms"], "communication");
  expect_close(report.compute_only_s * 1e3, totals["compute_ms_sum"], "compute sum");
  expect_close(report.memory_only_s * 1e3, totals["memory_ms_sum"], "memory sum");
  expect_close(report.weight_bytes / 1048576, totals["weights_MiB"], "weights");
  expect_close(report.cache_bytes / 1048576, totals["kv_cache_MiB"], "cache");
  EXPECT_EQ(report.macs, totals["macs_characteristics"].get<std::int64_t>());
  EXPECT_EQ(2 * report.macs, totals["ops_roofline_2x"].get<std::int64_t>());
  EXPECT_EQ(report.micro_batch, point["in"]["micro_batch"].get<std::int64_t>());
  if (point.contains("offload_effective_bw_GiBps")) {
    expect_close(report.memory_gib_s, point["offload_effective_bw_GiBps"], "offloaded rate");
  }
  if (!point.contains("api") || point["api"].is_null()) return;
  expect_close(report.latency_s * 1e3, point["api"]["Latency_ms"], "API latency");
  expect_close(report.throughput_per_s, point["api"]["Throughput"], "API throughput");
  EXPECT_EQ(report.offloaded, point["api"]["is_offload"].get<bool>());
}

/// GenZ raises where weights and cache do not fit; the estimate says so and goes on.
void expect_refusal(const Json& point) {
  const LatencyReport report = estimate_latency(request_of(point));
  EXPECT_FALSE(report.fits);
  const std::string text = point["api"]["error"];
  const std::string needle = "Weights : ";
  const double golden = std::stod(text.substr(text.find(needle) + needle.size()));
  expect_close(report.weight_bytes / 1073741824, golden, "weights");
}

TEST(LatencyGoldens, EveryPointAndOperatorAgrees) {
  int dense = 0;
  int experts = 0;
  int refused = 0;
  std::size_t rows = 0;
  for (const Json& point : latency_goldens()["points"]) {
    SCOPED_TRACE(point["id"].get<std::string>());
    const LatencyRequest request = request_of(point);
    ++(request.model.moe.experts == 1 ? dense : experts);
    if (!point.contains("ops")) {
      ++refused;
      expect_refusal(point);
      continue;
    }
    const LatencyReport report = estimate_latency(request);
    expect_totals(report, point);
    ASSERT_EQ(report.rows.size(), point["ops"].size());
    for (std::size_t i = 0; i < report.rows.size(); ++i) {
      expect_row(report.rows[i], point["ops"][i], report.request.precision);
    }
    rows += report.rows.size();
  }
  EXPECT_EQ(dense, 48);
  EXPECT_EQ(experts, 9);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ(rows, 588U);
}

TEST(LatencyGoldens, EveryCollectiveTimeAgrees) {
  const Json& table = latency_goldens()["collectives"]["rows"];
  for (const Json& row : table) {
    SCOPED_TRACE(row.dump());
    const SystemRates system{.name = {}, .link_gib_s = row[1], .link_latency_us = row[2]};
    const auto ms = [&](Collective collective) {
      return 1e3 * collective_seconds(collective, row[3], row[4], system);
    };
    expect_close(ms(Collective::all_reduce), row[5], "all-reduce");
    expect_close(ms(Collective::all_gather), row[6], "all-gather");
    expect_close(ms(Collective::all_to_all), row[7], "all-to-all");
    expect_close(ms(Collective::message_pass), row[8], "message pass");
  }
  EXPECT_EQ(table.size(), 24U);
}

TEST(LatencyGoldens, WholeModelCountsAgree) {
  const std::size_t rows = for_each_whole_model(
      [](const LatencyRequest& request, std::int64_t golden, const std::string& row) {
        const std::int64_t macs = estimate_latency(request).macs;
        // Ours are integers; GenZ adds doubles, and its sums stray by one past 2^51.
        EXPECT_LE(std::abs(macs - golden), golden >> 51) << macs << " " << row;
      });
  EXPECT_EQ(rows, 514U + 538U + 293U);
}

}  // namespace
}  // namespace annulus::test
