#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/output.h"
#include "launch/request/latency.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

/// A point of a grid is a line.
std::string one_line(const std::string& json) { return nlohmann::ordered_json::parse(json).dump(); }
/// One of the four reports.
struct Rendered {
  std::string text, json;
};

/// Of a model with experts: that they are not among attention's rows, and who counts them.
std::string where_experts_are(const Settings& settings) {
  const std::int64_t experts = settings.maybe_integer("experts").value_or(1);
  if (experts <= 1) return "";
  return fmt::format(
      "\nexperts: the {} experts of a layer, router and shared ones are in no row above.\n"
      "  operator by operator, on tp x ep x sp ranks: "
      "the same command with --compare-modes --system NAME\n"
      "  by the rows of a routing, on expert_degree ranks: "
      "bench --op moe, or --op layer with attention\n",
      experts);
}

Rendered render(const Settings& settings) {
  if (settings.has("legacy_model") && settings.flag("compare_modes")) {
    const std::vector<LatencyRequest> model = latency_requests_of(settings);
    const std::vector<LatencyRequest> legacy = legacy_requests_of(settings);
    std::vector<ModelComparison> stages;
    for (std::size_t i = 0; i < model.size(); ++i) {
      stages.push_back({compare_modes(model[i]), compare_modes(legacy[i])});
    }
    return {to_text(stages), to_json(stages)};
  }
  if (settings.has("legacy_model")) {
    const SizeComparison sizes = size_comparison_of(settings);
    return {to_text(sizes), to_json(sizes)};
  }
  if (settings.flag("compare_modes")) {
    std::vector<ModeComparison> stages;
    for (const LatencyRequest& request : latency_requests_of(settings)) {
      stages.push_back(compare_modes(request));
    }
    return {to_text(stages), to_json(stages)};
  }
  const CostReport report = price(cost_request_of(settings));
  return {to_text(report) + where_experts_are(settings), to_json(report)};
}

}  // namespace

int run_cost(const Call& call) {
  const Settings& settings = call.settings;
  const bool speaks = call.started.rank == 0;
  const std::vector<GridPoint> points = grid_of(settings);
  for (const GridPoint& point : points) {
    refuse_unbuilt_prediction(point.settings);
    // Every point is found wrong before the first is priced.
    const bool legacy = point.settings.has("legacy_model");
    const bool modes = point.settings.flag("compare_modes");
    if (legacy) size_comparison_of(point.settings);
    if (modes) latency_requests_of(point.settings);
    if (!legacy && !modes) cost_request_of(point.settings);
  }
  OutputFile json(speaks && settings.has("json") ? settings.path("json") : "",
                  settings.where("json"));
  std::string text;
  std::string lines;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const Rendered report = render(points[i].settings);
    if (!points[i].label.empty()) text += "== " + points[i].label + "\n";
    text += report.text;
    lines += (points.size() == 1 ? report.json : one_line(report.json)) + "\n";
  }
  if (!speaks) return kPassed;
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", text);
  }
  json.commit(lines);
  return kPassed;
}

}  // namespace annulus::launch
