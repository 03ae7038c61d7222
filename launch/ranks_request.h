#pragma once

#include "launch/options/settings.h"
#include "launch/ranks/ranks.h"
#include "launch/world.h"

namespace annulus::launch {

/// The ranks that settings ask for. Throws UsageError for a world, mesh or transport that cannot
/// be.
RanksRequest ranks_request_of(const Settings& settings, const World& started);

}  // namespace annulus::launch
