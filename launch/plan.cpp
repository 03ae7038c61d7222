#include "launch/command.h"
#include "launch/error.h"
#include "launch/output.h"
#include "launch/predict.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <thread>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

constexpr std::size_t kMostRows = 16;  ///< ranks that the table shows one by one

struct Candidate {
  PlanRequest request;
  RanksTotals totals;

  /// The slowest rank sets the step.
  double predicted_s() const { return std::ranges::max(totals.predicted_s); }
};

Candidate evaluate(const Settings& settings, PlanRequest request) {
  std::vector<Plan> plans;
  for (const Pass pass : passes_of(settings)) {
    request.pass = pass;
    plans.push_back(make_plan(request));
  }
  const int threads = std::max(2, static_cast<int>(std::thread::hardware_concurrency()));
  return {.request = request, .totals = total(plans, Machine{}, threads)};
}

/// `auto` becomes what `bench` would run.
PlanRequest decided(PlanRequest request, const Settings& settings) {
  if (request.algorithm != Algorithm::automatic) return request;
  const AlgorithmChoice choice =
      choose_algorithm(request.problem, request.layout, request.mesh.world(), passes_of(settings));
  request.algorithm = choice.algorithm;
  request.mesh = choice.mesh;
  return request;
}

/// The algorithms that can run on this world. Hybrid joins where its degree was given.
std::vector<PlanRequest> candidates_of(const PlanRequest& asked, const Settings& settings) {
  const int world = asked.mesh.world();
  const auto degree = static_cast<int>(settings.maybe_integer("ulysses_degree").value_or(1));
  std::vector<PlanRequest> requests;
  const auto add = [&](Algorithm algorithm, MeshShape mesh) {
    requests.push_back(asked);
    requests.back().algorithm = algorithm;
    requests.back().mesh = mesh;
  };
  add(Algorithm::ring, {.ring = world, .ulysses = 1});
  add(Algorithm::gather, {.ring = world, .ulysses = 1});
  add(Algorithm::ulysses, {.ring = 1, .ulysses = world});
  if (degree > 1 && degree < world && world % degree == 0) {
    add(Algorithm::hybrid, {.ring = world / degree, .ulysses = degree});
  }
  return requests;
}

std::vector<Candidate> evaluate_all(const Call& call, const PlanRequest& asked) {
  std::vector<Candidate> candidates;
  if (!call.line.compare) {
    candidates.push_back(evaluate(call.settings, decided(asked, call.settings)));
    return candidates;
  }
  for (const PlanRequest& request : candidates_of(asked, call.settings)) {
    candidates.push_back(evaluate(call.settings, request));
  }
  std::ranges::stable_sort(candidates, {}, &Candidate::predicted_s);
  return candidates;
}

ordered_json to_json(const Candidate& candidate, const Settings& settings) {
  const PlanRequest& request = candidate.request;
  const RanksTotals& totals = candidate.totals;
  return {{"schema", "annulus.plan/1"},
          {"problem", ordered_json::parse(problem_json(request.problem))},
          {"world", request.mesh.world()},
          {"algorithm", name_of(request.algorithm)},
          {"layout", request.layout.name()},
          {"ulysses_degree", request.mesh.ulysses},
          {"pass", settings.text("pass")},
          {"items", totals.items},
          {"masked_pairs", totals.masked_pairs},
          {"flops", totals.flops},
          {"bytes_sent", totals.bytes_sent},
          {"bytes_received", totals.bytes_received},
          {"peak_bytes", totals.peak_bytes},
          {"predicted_s", candidate.predicted_s()},
          {"predicted_source", "analytic"}};
}

std::string figures(const RanksTotals& totals, std::size_t rank) {
  return fmt::format("{:>16} {:>18} {:>14} {:>14} {:>14} {:>12.6f}\n", totals.masked_pairs[rank],
                     totals.flops[rank], totals.bytes_sent[rank], totals.bytes_received[rank],
                     totals.peak_bytes[rank], totals.predicted_s[rank]);
}

/// One line each for the least, the mean and the most of every column.
std::string summary(const RanksTotals& totals) {
  const auto column = [](const auto& values, const char* which) -> double {
    using std::ranges::max;
    using std::ranges::min;
    if (*which == 'l') return static_cast<double>(min(values));
    if (*which == 'x') return static_cast<double>(max(values));
    double sum = 0;
    for (const auto value : values) sum += static_cast<double>(value);
    return sum / static_cast<double>(values.size());
  };
  std::string text;
  constexpr std::array<std::pair<const char*, const char*>, 3> kLines{
      {{"least", "l"}, {"mean", "m"}, {"most", "x"}}};
  for (const auto& [name, which] : kLines) {
    text += fmt::format("{:>6} {:>16.0f} {:>18.0f} {:>14.0f} {:>14.0f} {:>14.0f} {:>12.6f}\n", name,
                        column(totals.masked_pairs, which), column(totals.flops, which),
                        column(totals.bytes_sent, which), column(totals.bytes_received, which),
                        column(totals.peak_bytes, which), column(totals.predicted_s, which));
  }
  return text;
}

std::string to_text(const Candidate& candidate, const Settings& settings) {
  const PlanRequest& request = candidate.request;
  const RanksTotals& totals = candidate.totals;
  std::string text =
      fmt::format("plan: {}, {} layout, {} ranks ({} ring x {} ulysses), pass {}, {} items\n",
                  name_of(request.algorithm), request.layout.name(), request.mesh.world(),
                  request.mesh.ring, request.mesh.ulysses, settings.text("pass"), totals.items);
  text += fmt::format("{:>6} {:>16} {:>18} {:>14} {:>14} {:>14} {:>12}\n", "rank", "masked pairs",
                      "FLOPs", "bytes sent", "bytes recv", "peak bytes", "analytic s");
  if (totals.flops.size() <= kMostRows) {
    for (std::size_t rank = 0; rank < totals.flops.size(); ++rank) {
      text += fmt::format("{:>6} {}", rank, figures(totals, rank));
    }
  }
  if (totals.flops.size() > 1) text += summary(totals);
  return text + fmt::format("predicted {:.6f} s (analytic: nominal rates of one CPU core)\n",
                            candidate.predicted_s());
}

}  // namespace

int run_plan(const Call& call) {
  const Settings& settings = call.settings;
  refuse_unbuilt_prediction(settings);
  const int world = planned_world_of(settings, call.started);
  const PlanRequest asked = plan_request_of(settings, world, Pass::forward);
  if (call.started.rank != 0) return kPassed;  // one process plans for all ranks
  OutputFile json(settings.has("json") ? settings.path("json") : "", settings.where("json"));
  const std::vector<Candidate> candidates = evaluate_all(call, asked);
  std::string text;
  ordered_json list = ordered_json::array();
  for (const Candidate& candidate : candidates) {
    text += to_text(candidate, settings);
    list.push_back(to_json(candidate, settings));
  }
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", text);
  }
  if (json.wanted()) json.commit((call.line.compare ? list : list.front()).dump() + "\n");
  return kPassed;
}

}  // namespace annulus::launch
