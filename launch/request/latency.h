#pragma once

#include "launch/options/settings.h"

#include <annulus/model_size.h>

#include <vector>

namespace annulus::launch {

/// What `cost --compare-modes` prices: prefill of `seq` and decode after `prompt` (default: seq)
/// and `generated` tokens; with stage = chunked, that step. Throws UsageError naming the key.
std::vector<LatencyRequest> latency_requests_of(const Settings& settings);

/// The same steps of GenZ's model (`legacy_model`), by GenZ's rules.
std::vector<LatencyRequest> legacy_requests_of(const Settings& settings);

/// The model, and GenZ's in its place (`legacy_model`): a shape of weights, no deployment.
SizeComparison size_comparison_of(const Settings& settings);

}  // namespace annulus::launch
