#pragma once

#include "launch/bench/place.h"

#include <annulus/annulus.h>

#include <cstddef>
#include <optional>
#include <span>
#include <string>

namespace annulus::launch {

/// What the report says of recorded calls.
struct TraceFigures {
  std::string file;                             ///< empty: none was asked for
  std::optional<double> forward_s, backward_s;  ///< recorded calls, the slowest rank of each
  double clock_error_s = 0;                     ///< the largest of a rank; with a file
  bool held = true;  ///< each began when all of it was enqueued on all ranks (GPUs)
};

/// Recorded calls of all ranks.
struct Traced {
  TracedRun run;         ///< on rank 0, with a file; elsewhere without calls
  TraceFigures figures;  ///< without the file's name
  double exposed_s = 0;  ///< of all passes, the rank that has most
  /// On some rank kernels waited for keys themselves and did not count it: exposed_s lacks that.
  bool waits_uncounted = false;
};

/// What is recorded: `calls` of each pass, one pass after the other as in timed calls. Of the last
/// kMostKept the one of median length counts; those before make the machine warm, which it is not
/// after the host has checked results.
struct Recording {
  static constexpr int kWarm = 3;
  static constexpr int kMostKept = 5;

  std::span<const Pass> passes;
  int calls = 1;
  bool file = false;  ///< all ranks' samples are gathered
};

/// The same on every rank. Collective; after the timed calls, which it would disturb.
Traced record_calls(Mesh& mesh, Attention& attention, const Place& place,
                    const Recording& recording);

/// Pure: which of some calls counts, by the seconds of each.
std::size_t typical_call(std::span<const double> seconds);

}  // namespace annulus::launch
