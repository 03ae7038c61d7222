#pragma once

#include "launch/bench/moe/report.h"
#include "launch/bench/moe/run.h"

#include <vector>

namespace annulus::launch {

/// Times of the calls of one rank.
struct MoeTimes {
  std::vector<double> forward, backward;
};

/// One warm-up or timed call of each pass; collective. Negative `call`: a warm-up.
void time_moe(MoeRun& run, std::int64_t call, bool backward, MoeRun::Given given, MoeTimes& times);

/// Everything but timing of attention and memory: gathers the ranks' figures. The check of the last
/// calls is made before the balanced ones, which overwrite them. Collective.
MoeReport measure_moe(Mesh& mesh, MoeRun& run, const MoeTimes& times, bool forward, bool backward);

/// Times a balanced routing, so that the report says what imbalance cost; where a router ran, also
/// its routing without it. Collective; voids the results.
void time_balanced(Mesh& mesh, MoeRun& run, std::int64_t calls, bool forward, bool backward,
                   MoeReport& report);

}  // namespace annulus::launch
