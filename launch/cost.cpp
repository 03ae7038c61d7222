#include "launch/command.h"
#include "launch/error.h"
#include "launch/output.h"
#include "launch/request/problem.h"

#include <annulus/annulus.h>

#include <fmt/format.h>

#include <cstdio>

namespace annulus::launch {

int run_cost(const Call& call) {
  const Settings& settings = call.settings;
  refuse_unbuilt_prediction(settings);
  const bool speaks = call.started.rank == 0;
  OutputFile json(speaks && settings.has("json") ? settings.path("json") : "",
                  settings.where("json"));
  const CostReport report = price(cost_request_of(settings));
  if (!speaks) return kPassed;
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", to_text(report));
  }
  if (json.wanted()) json.commit(to_json(report) + "\n");
  return kPassed;
}

}  // namespace annulus::launch
