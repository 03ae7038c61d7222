#include "launch/bench/json_parts.h"
#include "launch/bench/report.h"
#include "launch/request/problem.h"

#include <nlohmann/json.hpp>

#include <algorithm>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

ordered_json number_json(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

/// cold, host and graph figures are of GPUs; null elsewhere.
ordered_json call_json(const std::optional<Timing>& timing,
                       const std::optional<HiddenCosts>& hidden) {
  if (!timing) return nullptr;
  const auto of = [&](auto member) -> std::optional<double> {
    if (!hidden) return std::nullopt;
    return (*hidden).*member;
  };
  ordered_json json = timing_json(timing);
  json["host_median_s"] = number_json(of(&HiddenCosts::host_s));
  json["host_again_median_s"] = number_json(of(&HiddenCosts::host_again_s));
  json["cold_median_s"] = number_json(of(&HiddenCosts::cold_s));
  json["graph_median_s"] = number_json(of(&HiddenCosts::graph_s));
  json["graph_host_median_s"] = number_json(of(&HiddenCosts::graph_host_s));
  json["graph_host_again_median_s"] = number_json(of(&HiddenCosts::graph_host_again_s));
  return json;
}

ordered_json parallel_json(const BenchReport& report) {
  return {{"world", report.world},
          {"algorithm", report.algorithm},
          {"layout", report.layout},
          {"transport", report.transport},
          {"transport_reason", report.transport_reason},
          {"ulysses_degree", report.mesh.ulysses},
          {"backward_moves", report.backward_moves},
          {"sm_limit", report.sm_limit}};
}

/// Rates are of model FLOPs, the exact ones of the mask.
ordered_json throughput_json(const BenchReport& r) {
  const bool known = r.peak.tflops > 0;
  return {{"forward_tflops_per_rank", r.forward_tflops_per_rank},
          {"backward_tflops_per_rank", r.backward_tflops_per_rank},
          {"tflops_per_rank", r.tflops_per_rank},
          {"forward_mfu", number_json(mfu(r.forward_tflops_per_rank, r.peak))},
          {"backward_mfu", number_json(mfu(r.backward_tflops_per_rank, r.peak))},
          {"mfu", number_json(mfu(r.tflops_per_rank, r.peak))},
          {"peak_tflops", known ? ordered_json(r.peak.tflops) : ordered_json(nullptr)},
          {"peak_source", known ? ordered_json(r.peak.source) : ordered_json(nullptr)},
          {"mfu_unavailable", known ? ordered_json(nullptr) : ordered_json(r.peak.unavailable)}};
}

/// Null: no call was recorded.
ordered_json recorded_json(const std::optional<TraceFigures>& recorded) {
  if (!recorded) return nullptr;
  return {{"forward_call_s", number_json(recorded->forward_s)},
          {"backward_call_s", number_json(recorded->backward_s)},
          {"held", recorded->held}};
}

ordered_json comm_json(const BenchReport& report) {
  return {{"bytes_sent_per_rank", std::ranges::max(report.bytes_sent)},
          {"bytes_sent_by_rank", report.bytes_sent},
          {"exposed_s", report.exposed_s},
          {"exposed_source", report.exposed_source},
          {"recorded", recorded_json(report.recorded)},
          {"transfers_alone_s", report.transfers_alone_s},
          {"forward_transfers_per_rank", report.forward_transfers},
          {"backward_transfers_per_rank", report.backward_transfers},
          {"overlap", number_json(report.overlap)}};
}

ordered_json trace_json(const TraceFigures& trace) {
  return {{"file", trace.file},
          {"forward_call_s", number_json(trace.forward_s)},
          {"backward_call_s", number_json(trace.backward_s)},
          {"clock_error_s", trace.clock_error_s}};
}

}  // namespace

std::string to_json(const BenchReport& report) {
  ordered_json json{
      {"schema", "annulus.bench/1"},
      {"op", !report.kinds.empty() ? "layer" : "attention"},
      {"problem", ordered_json::parse(problem_json(report.problem))},
      {"parallel", parallel_json(report)},
      {"device", {{"backend", report.backend}, {"name", report.device}, {"count", report.world}}},
      {"kernel",
       {{"used", report.kernel_used},
        {"fallback_reason", report.fallback_reason.empty()
                                ? ordered_json(nullptr)
                                : ordered_json(report.fallback_reason)}}},
      {"timing",
       {{"forward", call_json(report.forward, report.forward_hidden)},
        {"backward", call_json(report.backward, report.backward_hidden)}}},
      {"throughput", throughput_json(report)},
      {"check", check_json(report.check)},
      {"memory",
       {{"planned_peak_bytes", report.planned_peak_bytes},
        {"measured_peak_bytes", report.measured_peak_bytes}}},
      {"comm", comm_json(report)},
      {"cost", ordered_json::parse(to_json(report.cost))},
      {"environment", environment_json(report.mpi, report.threads, report.command_line)}};
  if (report.recorded && !report.recorded->file.empty())
    json["trace"] = trace_json(*report.recorded);
  if (!report.kinds.empty()) {
    json["layer"] = ordered_json::parse(kinds_json(report.kinds, report.cost.executed));
  }
  return json.dump();  // one line, so that the points of a grid are lines
}

}  // namespace annulus::launch
