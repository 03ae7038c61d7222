#pragma once

#include "launch/bench/report.h"

#include <annulus/annulus.h>

#include <vector>

namespace annulus::launch {

/// What was timed before.
struct TimedCalls {
  std::vector<Pass> passes;
  std::vector<CallStats> last;  ///< by pass
  bool quick = false;           ///< some calls more take no time to speak of
};

/// Bytes, the same transfers with nothing computed, and exposed time where no recorded call told it
/// (report.exposed_source). Collective; voids the results of calls.
void measure_comm(Mesh& mesh, Attention& attention, const TimedCalls& timed, BenchReport& report);

}  // namespace annulus::launch
