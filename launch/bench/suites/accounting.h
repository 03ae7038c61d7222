#pragma once

#include "launch/bench/measure.h"
#include "launch/bench/suites/suite.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// One prefill on `sp` ranks, one thread each.
struct AccountingPoint {
  int sp = 1;
  Timing forward{};      ///< wall clock of the slowest rank of each call
  double cpu_s = 0;      ///< processor time of the busiest rank, median over calls
  double exposed_s = 0;  ///< of that, waiting for transfers in the last call, slowest rank
  std::int64_t original_macs = 0;              ///< of one rank, one layer
  std::int64_t corrected_macs = 0;             ///< of one rank, one layer
  std::vector<std::int64_t> exact_flops{};     ///< by rank
  std::vector<std::int64_t> executed_flops{};  ///< by rank
};

struct AccountingRun {
  Problem problem;  ///< resolved
  std::string algorithm, layout, kernel, command_line;
  std::int64_t calls = 0;
  int hardware_threads = 1;
  double load_average = 0;              ///< of the last minute, before the first call
  std::vector<AccountingPoint> points;  ///< the first is sp = 1
  std::string device{};
};

/// Speed-ups over sp = 1.
struct AccountingSpeedup {
  int sp = 1;
  double balance = 1;                             ///< mean over most of the ranks' exact FLOPs
  double original = 1, corrected = 1, exact = 1;  ///< predicted
  double executed = 1, measured = 1, cpu = 1;
};
std::vector<AccountingSpeedup> speedups(const AccountingRun& run);

/// Which accounting the executed FLOPs agree with, and what the clock could show here.
std::vector<std::string> verdict(const AccountingRun& run);

/// No rank may execute less than the mask asks of it.
bool plausible(const AccountingRun& run);

SuiteReport report_of(const AccountingRun& run);

}  // namespace annulus::launch
