#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/output.h"
#include "launch/predict.h"
#include "launch/request/problem.h"
#include "launch/request/system.h"

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
  /// Of backward around a ring, all ranks: what moves, and what either would send.
  BackwardMoves moves = BackwardMoves::keys;
  RingBytes ring{};

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
  return {.request = request,
          .totals = total(plans, machine_of(settings), threads),
          .moves = plans.back().backward_moves(),
          .ring = plans.back().ring_bytes()};
}

/// `auto` becomes what `bench` would run.
PlanRequest decided(PlanRequest request, const Settings& settings) {
  if (request.algorithm != Algorithm::automatic) return request;
  const AlgorithmChoice choice =
      choose_algorithm(request.problem, request.layout, request.mesh.world(), passes_of(settings),
                       machine_of(settings));
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

std::vector<Candidate> evaluate_all(const Settings& settings, bool compare,
                                    const PlanRequest& asked) {
  std::vector<Candidate> candidates;
  if (!compare) {
    candidates.push_back(evaluate(settings, decided(asked, settings)));
    return candidates;
  }
  for (const PlanRequest& request : candidates_of(asked, settings)) {
    candidates.push_back(evaluate(settings, request));
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
          {"backward_moves", name_of(candidate.moves)},
          {"ring_bytes_keys", candidate.ring.keys},
          {"ring_bytes_queries", candidate.ring.queries},
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
  if (candidate.ring.keys + candidate.ring.queries > 0) {
    text += fmt::format(
        "backward moves {}: of all ranks {} bytes of keys and their gradients, {} of queries and "
        "theirs\n",
        name_of(candidate.moves), candidate.ring.keys, candidate.ring.queries);
  }
  return text + fmt::format("predicted {:.6f} s (analytic, {})\n", candidate.predicted_s(),
                            machine_of(settings).name);
}

void report(const GridPoint& point, bool compare, const PlanRequest& asked, OutputFile& json,
            std::string& lines) {
  std::string text = point.label.empty() ? "" : "== " + point.label + "\n";
  ordered_json list = ordered_json::array();
  for (const Candidate& candidate : evaluate_all(point.settings, compare, asked)) {
    text += to_text(candidate, point.settings);
    list.push_back(to_json(candidate, point.settings));
  }
  if (!point.settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", text);
  }
  lines += (compare ? list : list.front()).dump() + "\n";
}

}  // namespace

int run_plan(const Call& call) {
  const Settings& settings = call.settings;
  const std::vector<GridPoint> points = grid_of(settings);
  std::vector<PlanRequest> requests;
  for (const GridPoint& point : points) {
    refuse_unbuilt_prediction(point.settings);
    const int world = planned_world_of(point.settings, call.started);
    requests.push_back(plan_request_of(point.settings, world, Pass::forward));
  }
  if (call.started.rank != 0) return kPassed;  // one process plans for all ranks
  OutputFile json(settings.has("json") ? settings.path("json") : "", settings.where("json"));
  std::string lines;
  for (std::size_t i = 0; i < points.size(); ++i) {
    report(points[i], call.line.compare, requests[i], json, lines);
  }
  json.commit(lines);
  return kPassed;
}

}  // namespace annulus::launch
