#pragma once

#include "launch/bench/place.h"

#include <annulus/annulus.h>
#include <annulus/cost.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::launch {

/// What was measured.
struct HardwareRequest {
  const Problem& problem;
  const AttentionOptions& attention;
  const SessionOptions& session;
  int device;
  std::vector<Pass> passes;
};

/// What counters of the GPU read in one call of each pass, and in one of the naive kernel's
/// forward, where that fits; or why nothing was read. Collective, outside the timed calls: counting
/// slows launches. Overwrites results on the GPU.
void count_hardware(Mesh& mesh, const HardwareRequest& request, Attention& attention,
                    const Place& place, CostReport& cost);

/// The naive kernel keeps its scores in memory: are they few enough to run it beside a session?
bool naive_fits(const Problem& problem, int world);

/// Bytes of all ranks by the naive kernel over those by another; 0 where there are none.
double memory_efficiency(std::span<const std::int64_t> naive, std::span<const std::int64_t> other);

}  // namespace annulus::launch
