#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus {
namespace {

constexpr double kGiB = 1073741824.0;

/// Bandwidth when what does not fit streams from the host beside the rest.
double offloaded_rate(const SystemRates& system, double needed_gib) {
  const double here = std::min(needed_gib, system.memory_gib) / system.memory_gib_s;
  const double there = (needed_gib - system.memory_gib) / system.host_gib_s;
  return needed_gib / std::max(here, there);
}

void count(LatencyReport& report) {
  const Precision precision = report.request.precision;
  for (const OperatorRow& row : report.rows) {
    const std::int64_t macs = cost::times(row.repeat, row.macs);
    const double bytes =
        static_cast<double>(row.repeat) * cost::bytes_of(row.weight_elements, precision);
    report.macs = cost::plus(report.macs, macs);
    if (row.is_attention()) {
      report.attention_macs = cost::plus(report.attention_macs, macs);
      report.cache_bytes += bytes;
    } else {
      report.weight_bytes += bytes;
    }
  }
}

void fit(LatencyReport& report) {
  const LatencyRequest& r = report.request;
  const double needed =
      (report.weight_bytes + report.cache_bytes) / static_cast<double>(r.pp) / kGiB;
  report.fits = needed <= r.system.memory_gib;
  report.offloaded = !report.fits && r.offload;
  report.memory_gib_s = report.offloaded ? offloaded_rate(r.system, needed) : r.system.memory_gib_s;
}

void time(LatencyReport& report) {
  for (OperatorRow& row : report.rows) {
    cost::time_row(row, report.request, report.memory_gib_s);
    const auto repeat = static_cast<double>(row.repeat);
    const double seconds = repeat * row.latency_s();
    report.latency_s += seconds;
    if (row.is_attention()) report.attention_s += seconds;
    if (row.kind == OperatorKind::gemm) report.linear_s += seconds;
    report.comm_s += repeat * row.comm_s;
    report.compute_only_s += repeat * row.compute_s;
    report.memory_only_s += repeat * row.memory_s;
  }
}

/// GenZ counts an entry of a chunked step as one token, even where it stands for several requests.
double produced(const LatencyRequest& r) {
  if (r.stage != Stage::chunked) return static_cast<double>(r.batch);
  auto tokens = static_cast<double>(r.decodes.size());
  for (const PrefillChunk& chunk : r.chunks) tokens += static_cast<double>(chunk.fresh);
  return tokens;
}

}  // namespace

LatencyReport estimate_latency(const LatencyRequest& request) {
  cost::validate(request);
  LatencyReport report;
  report.request = request;
  report.micro_batch = std::max<std::int64_t>(1, request.batch / request.pp);
  report.rows = cost::operators_of(request, report.micro_batch);
  count(report);
  fit(report);
  time(report);
  if (report.latency_s > 0) report.throughput_per_s = produced(request) / report.latency_s;
  return report;
}

}  // namespace annulus
