#pragma once

#include "attention/execute/memory.h"
#include "comm/device/device_link.h"

#include <annulus/plan.h>

#include <cstddef>
#include <functional>
#include <vector>

namespace annulus::attn {

/// How a transfer reaches its other end.
struct TransferReach {
  std::byte* arena = nullptr;  ///< the peer's, as this GPU addresses it; null where it cannot
  bool pulls = true;           ///< DeviceTransfer::pulls, where the plan does not say
};

/// The transfers of `rank`, with both their ends where this rank moves the data. Materialises the
/// plans of the peers that are addressed. Where a caller's tensor lies is said in each call
/// (DeviceLink::set_own). Throws Unsupported where a transfer touches one that it does not move
/// itself: plans for GPUs are made with stage_caller.
std::vector<comm::DeviceTransfer> device_transfers(
    const Plan& plan, const RankPlan& rank, const Memory& memory,
    const std::function<TransferReach(const Transfer&)>& reach_of);

}  // namespace annulus::attn
