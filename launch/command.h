#pragma once

#include "launch/options/sources.h"
#include "launch/world.h"

#include <string>
#include <vector>

namespace annulus::launch {

/// One call of the command.
struct Call {
  Settings settings;
  CommandLine line;
  World started;
  std::string command_line;  ///< as typed, for reports
};

// The subcommands: one file each. They return an ExitCode, and throw UsageError or the library's
// errors, which main.cpp turns into a line and an exit code.
int run_attend(const Call& call);
int run_bench(const Call& call);
int run_cost(const Call& call);
int run_doctor(const Call& call);
int run_mask(const Call& call);
int run_plan(const Call& call);
int run_route(const Call& call);

}  // namespace annulus::launch
