#pragma once

#include "attention/kernels/params.h"

#include <cstddef>
#include <vector>

// The schedule of a launch that does not change from call to call, so that no kernel makes it
// before each.
namespace annulus::attn::sm90 {

/// Counters (Kept) and the query tiles of `geometry`, whose lists the host can read, in the order
/// that place_query_tile gives them: bytes for schedule_in.
std::vector<std::byte> make_kept(const AttendGeometry& geometry, int step_keys);

}  // namespace annulus::attn::sm90
