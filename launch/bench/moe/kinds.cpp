#include "launch/bench/moe/kinds.h"

#include "launch/bench/moe/check.h"

#include <numeric>

namespace annulus::launch {
namespace {

std::int64_t sum(const std::vector<std::int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::vector<double> added(std::span<const double> a, const std::vector<double>& b) {
  std::vector<double> both(a.begin(), a.end());
  for (std::size_t i = 0; i < both.size(); ++i) both[i] += b[i];
  return both;
}

}  // namespace

KindRuns::KindRuns(Mesh& mesh, const std::vector<KindRequest>& requests, std::uint64_t seed,
                   const std::vector<std::int64_t>& tokens, bool backward)
    : mesh_(mesh), backward_(backward) {
  for (const KindRequest& request : requests) {
    runs_.push_back({.request = &request,
                     .ffn = std::make_unique<MoeRun>(mesh, request.ffn, seed, tokens, backward),
                     .times = {}});
  }
}

void KindRuns::time(std::int64_t call) {
  for (Run& run : runs_) time_moe(*run.ffn, call, backward_, MoeRun::Given::asked, run.times);
}

KindReport KindRuns::report_of(Run& run, const Settings& settings,
                               std::span<const double> forward_s,
                               std::span<const double> backward_s) {
  const bool forward = settings.text("pass") != "backward";
  const std::string& check = settings.text("check");
  KindReport report;
  report.kind = run.request->kind;
  report.layers = run.request->layers;
  report.ffn = measure_moe(mesh_, *run.ffn, run.times, forward, backward_);
  if (forward) report.forward = timing_over_ranks(mesh_, added(forward_s, run.times.forward));
  if (backward_) report.backward = timing_over_ranks(mesh_, added(backward_s, run.times.backward));
  if (check != "none") {
    report.ffn.check = check_moe(mesh_, *run.ffn, backward_, check == "sample");
  }
  time_balanced(mesh_, *run.ffn, settings.integer("iterations"), forward, backward_, report.ffn);
  return report;
}

std::vector<KindReport> KindRuns::finish(const Settings& settings,
                                         std::span<const double> forward_s,
                                         std::span<const double> backward_s,
                                         std::int64_t measured_peak_bytes) {
  std::vector<KindReport> reports;
  for (Run& run : runs_) {
    reports.push_back(report_of(run, settings, forward_s, backward_s));
    reports.back().ffn.measured_peak_bytes = measured_peak_bytes;
  }
  return reports;
}

ModelSums sums_of(const std::vector<KindReport>& kinds, const CountedFlops& attention) {
  ModelSums sums;
  for (const KindReport& k : kinds) {
    sums.layers += k.layers;
    const auto layers = static_cast<double>(k.layers);
    if (k.forward) sums.forward_s += layers * k.forward->median_s;
    if (k.backward) sums.backward_s += layers * k.backward->median_s;
    sums.forward_flops += k.layers * (sum(attention.flops_rank_layer) + sum(k.ffn.forward_flops));
    sums.backward_flops +=
        k.layers * (sum(attention.backward_flops_rank_layer) + sum(k.ffn.backward_flops));
    sums.bytes_sent += k.layers * (sum(k.ffn.forward_bytes) + sum(k.ffn.backward_bytes));
  }
  return sums;
}

}  // namespace annulus::launch
