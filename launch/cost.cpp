#include "launch/command.h"
#include "launch/error.h"
#include "launch/output.h"
#include "launch/request/latency.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>

#include <cstdio>

namespace annulus::launch {
namespace {

/// Either of the two reports.
struct Rendered {
  std::string text, json;
};

Rendered render(const Settings& settings) {
  if (settings.flag("compare_modes")) {
    std::vector<ModeComparison> stages;
    for (const LatencyRequest& request : latency_requests_of(settings)) {
      stages.push_back(compare_modes(request));
    }
    return {to_text(stages), to_json(stages)};
  }
  const CostReport report = price(cost_request_of(settings));
  return {to_text(report), to_json(report)};
}

}  // namespace

int run_cost(const Call& call) {
  const Settings& settings = call.settings;
  refuse_unbuilt_prediction(settings);
  const bool speaks = call.started.rank == 0;
  OutputFile json(speaks && settings.has("json") ? settings.path("json") : "",
                  settings.where("json"));
  const Rendered report = render(settings);
  if (!speaks) return kPassed;
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", report.text);
  }
  if (json.wanted()) json.commit(report.json + "\n");
  return kPassed;
}

}  // namespace annulus::launch
