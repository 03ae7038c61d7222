#pragma once

#include "attention/execute/memory.h"
#include "comm/device/device_link.h"

#include <annulus/plan.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace annulus::attn {

/// The transfers of `rank` with both their ends. `arena_of(peer)`: the peer's arena as this GPU
/// addresses it, null where it cannot; then `theirs` stays empty. Materialises the plans of the
/// peers that are addressed. Throws Unsupported where a transfer touches a caller's tensor: plans
/// for GPUs are made with stage_caller.
std::vector<comm::DeviceTransfer> device_transfers(const Plan& plan, const RankPlan& rank,
                                                   const Memory& memory,
                                                   const std::function<std::byte*(int)>& arena_of);

}  // namespace annulus::attn
