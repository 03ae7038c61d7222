#include "launch/bench/report.h"
#include "launch/request/problem.h"

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <array>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

ordered_json number_json(const std::optional<double>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

/// cold, host and graph figures are of GPUs; null elsewhere.
ordered_json timing_json(const std::optional<Timing>& timing,
                         const std::optional<HiddenCosts>& hidden) {
  if (!timing) return nullptr;
  const auto of = [&](auto member) -> std::optional<double> {
    if (!hidden) return std::nullopt;
    return (*hidden).*member;
  };
  return {{"median_s", timing->median_s},
          {"min_s", timing->min_s},
          {"max_s", timing->max_s},
          {"p99_s", timing->p99_s},
          {"host_median_s", number_json(of(&HiddenCosts::host_s))},
          {"cold_median_s", number_json(of(&HiddenCosts::cold_s))},
          {"graph_median_s", number_json(of(&HiddenCosts::graph_s))},
          {"graph_host_median_s", number_json(of(&HiddenCosts::graph_host_s))}};
}

ordered_json check_json(const std::optional<CheckReport>& check) {
  if (!check) return nullptr;
  ordered_json json{{"passed", check->passed()}, {"mode", check->sampled ? "sample" : "full"}};
  for (const CheckLine& line : check->lines) {
    json[line.name + "_rel_err"] = line.rel_err;
    json[line.name + "_bound"] = line.bound;
    json[line.name + "_elements"] = line.elements;
  }
  return json;
}

ordered_json parallel_json(const BenchReport& report) {
  return {{"world", report.world},
          {"algorithm", report.algorithm},
          {"layout", report.layout},
          {"transport", report.transport},
          {"transport_reason", report.transport_reason},
          {"ulysses_degree", report.mesh.ulysses}};
}

ordered_json comm_json(const BenchReport& report) {
  return {{"bytes_sent_per_rank", std::ranges::max(report.bytes_sent)},
          {"bytes_sent_by_rank", report.bytes_sent},
          {"exposed_s", report.exposed_s},
          {"transfers_alone_s", report.transfers_alone_s},
          {"forward_transfers_per_rank", report.forward_transfers},
          {"backward_transfers_per_rank", report.backward_transfers},
          {"overlap", number_json(report.overlap)}};
}

ordered_json environment_json(const BenchReport& report) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return {{"annulus", ANNULUS_VERSION}, {"compiler", __VERSION__},
          {"mpi", report.mpi},          {"host", host.data()},
          {"threads", report.threads},  {"command_line", report.command_line}};
}

}  // namespace

std::string to_json(const BenchReport& report) {
  const ordered_json json{
      {"schema", "annulus.bench/1"},
      {"problem", ordered_json::parse(problem_json(report.problem))},
      {"parallel", parallel_json(report)},
      {"device", {{"backend", report.backend}, {"name", report.device}, {"count", report.world}}},
      {"kernel",
       {{"used", report.kernel_used},
        {"fallback_reason", report.fallback_reason.empty()
                                ? ordered_json(nullptr)
                                : ordered_json(report.fallback_reason)}}},
      {"timing",
       {{"forward", timing_json(report.forward, report.forward_hidden)},
        {"backward", timing_json(report.backward, report.backward_hidden)}}},
      {"throughput",
       {{"forward_tflops_per_rank", report.forward_tflops_per_rank},
        {"backward_tflops_per_rank", report.backward_tflops_per_rank}}},
      {"check", check_json(report.check)},
      {"memory",
       {{"planned_peak_bytes", report.planned_peak_bytes},
        {"measured_peak_bytes", report.measured_peak_bytes}}},
      {"comm", comm_json(report)},
      {"cost", ordered_json::parse(to_json(report.cost))},
      {"environment", environment_json(report)}};
  return json.dump();  // one line, so that the points of a grid are lines
}

}  // namespace annulus::launch
