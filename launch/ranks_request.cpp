#include "launch/ranks_request.h"

#include "launch/request/problem.h"

#include <algorithm>
#include <array>
#include <string_view>

namespace annulus::launch {
namespace {

LogOptions log_options(const Settings& settings) {
  LogOptions log;
  if (settings.has("log_level")) {
    constexpr std::array<std::string_view, 5> kLevels{"debug", "info", "warn", "error", "off"};
    const auto* found = std::ranges::find(kLevels, settings.text("log_level"));
    log.level = static_cast<int>(found - kLevels.begin());
  }
  if (settings.has("log_dir")) log.dir = settings.path("log_dir").string();
  return log;
}

}  // namespace

RanksRequest ranks_request_of(const Settings& settings, const World& started) {
  return {.started = started,
          .shape = mesh_of(settings, world_of(settings, started)),
          .options = {.timeout_s = settings.real("timeout_s"),
                      .log = log_options(settings),
                      .shared_memory = settings.flag("shared_memory")},
          .transport = transport_of(settings, started)};
}

}  // namespace annulus::launch
