#include "launch/bench/suites/suite.h"

#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

namespace annulus::launch {

SuiteOutputs::SuiteOutputs(const Settings& settings)
    : quiet_(settings.flag("quiet")),
      json_(settings.has("json") ? settings.path("json") : "", settings.where("json")),
      svg_(settings.has("svg") ? settings.path("svg") : "", settings.where("svg")) {
  if (json_.to_standard_output() && svg_.to_standard_output()) {
    settings.refuse("svg", "is standard output, and so is json: allowed for one of them");
  }
}

int SuiteOutputs::publish(const SuiteReport& report) {
  const bool taken = json_.to_standard_output() || svg_.to_standard_output();
  if (!quiet_) fmt::print(taken ? stderr : stdout, "{}", report.text);
  if (json_.wanted()) json_.commit(report.json + "\n");
  if (svg_.wanted()) svg_.commit(report.svg);
  if (!quiet_ && !taken) {
    if (json_.wanted()) fmt::print("report     {}\n", json_.path().string());
    if (svg_.wanted()) fmt::print("chart      {}\n", svg_.path().string());
  }
  std::fflush(stdout);
  return report.passed ? kPassed : kCheckFailed;
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

void prefer(Settings& settings, std::string_view key, std::string_view value) {
  if (settings.given(key)) return;
  settings.set(key, {.text = std::string(value),
                     .origin = Origin::preset,
                     .where = option_of(key),
                     .folder = {}});
}

}  // namespace annulus::launch
