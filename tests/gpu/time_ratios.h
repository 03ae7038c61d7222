#pragma once

#include <string>

namespace annulus::testing {

/// What rings ask of `hopper`, beside its plain call: keys in four segments, resuming and leaving a
/// state, adding to dk and dv, one order of dQ. bf16, head dim 128, 16 heads; each group of
/// launches interleaved. `only`: part of "bf16 128 causal 8192"; empty: all.
void time_ratios(const std::string& only);

}  // namespace annulus::testing
