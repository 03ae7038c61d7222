#pragma once

#include "launch/options/settings.h"

#include <annulus/latency.h>

#include <vector>

namespace annulus::launch {

/// What `cost --compare-modes` prices: prefill of `seq` and decode after `prompt` (default: seq)
/// and `generated` tokens; with stage = chunked, that step. Throws UsageError naming the key.
std::vector<LatencyRequest> latency_requests_of(const Settings& settings);

}  // namespace annulus::launch
