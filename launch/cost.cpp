#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/output.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <cstdio>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

/// A point of a grid is a line.
std::string one_line(const std::string& json) { return nlohmann::ordered_json::parse(json).dump(); }

}  // namespace

int run_cost(const Call& call) {
  const Settings& settings = call.settings;
  const bool speaks = call.started.rank == 0;
  const std::vector<GridPoint> points = grid_of(settings);
  std::vector<CostRequest> requests;
  for (const GridPoint& point : points) {
    refuse_unbuilt_prediction(point.settings);
    requests.push_back(cost_request_of(point.settings));
  }
  OutputFile json(speaks && settings.has("json") ? settings.path("json") : "",
                  settings.where("json"));
  std::string text;
  std::string lines;
  for (std::size_t i = 0; i < points.size(); ++i) {
    const CostReport report = price(requests[i]);
    if (!points[i].label.empty()) text += "== " + points[i].label + "\n";
    text += to_text(report);
    const std::string object = to_json(report);
    lines += (points.size() == 1 ? object : one_line(object)) + "\n";
  }
  if (!speaks) return kPassed;
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", text);
  }
  json.commit(lines);
  return kPassed;
}

}  // namespace annulus::launch
