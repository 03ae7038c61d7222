#pragma once

#include "launch/bench/check.h"
#include "launch/bench/measure.h"

#include <nlohmann/json.hpp>

#include <optional>
#include <string>

namespace annulus::launch {

// Parts that the reports of all operations share.

nlohmann::ordered_json timing_json(const std::optional<Timing>& timing);
nlohmann::ordered_json check_json(const std::optional<CheckReport>& check);
nlohmann::ordered_json environment_json(const std::string& mpi, int threads,
                                        const std::string& command_line);

}  // namespace annulus::launch
