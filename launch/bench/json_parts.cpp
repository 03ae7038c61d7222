#include "launch/bench/json_parts.h"

#include <annulus/version.h>

#include <unistd.h>

#include <array>

namespace annulus::launch {

using nlohmann::ordered_json;

ordered_json timing_json(const std::optional<Timing>& timing) {
  if (!timing) return nullptr;
  return {{"median_s", timing->median_s},
          {"min_s", timing->min_s},
          {"max_s", timing->max_s},
          {"p99_s", timing->p99_s}};
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

ordered_json environment_json(const std::string& mpi, int threads,
                              const std::string& command_line) {
  std::array<char, 256> host{};
  gethostname(host.data(), host.size() - 1);
  return {{"annulus", ANNULUS_VERSION}, {"compiler", __VERSION__}, {"mpi", mpi},
          {"host", host.data()},        {"threads", threads},      {"command_line", command_line}};
}

}  // namespace annulus::launch
