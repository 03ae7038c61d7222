#pragma once

#include "launch/bench/place.h"

#include <annulus/annulus.h>

#include <optional>
#include <span>
#include <string>

namespace annulus::launch {

/// What the report says of a trace.
struct TraceFigures {
  std::string file;
  std::optional<double> forward_s, backward_s;  ///< traced calls, the slowest rank of each
  double clock_error_s = 0;                     ///< the largest of a rank
};

/// Recorded calls of all ranks.
struct Traced {
  TracedRun run;         ///< on rank 0; elsewhere without calls
  TraceFigures figures;  ///< without the file's name
  double exposed_s = 0;  ///< of all passes, the rank that has most
  /// On some rank kernels waited for keys themselves and did not count it: exposed_s lacks that.
  bool waits_uncounted = false;
};

/// One more call of each pass, recorded. Collective; after the timed calls, which it would disturb.
Traced trace_calls(Mesh& mesh, Attention& attention, const Place& place,
                   std::span<const Pass> passes);

}  // namespace annulus::launch
