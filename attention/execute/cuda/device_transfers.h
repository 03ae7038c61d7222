#pragma once

#include "attention/execute/memory.h"
#include "comm/device/device_link.h"

#include <annulus/plan.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace annulus::attn {

/// How a transfer reaches its other end.
struct TransferReach {
  std::byte* arena = nullptr;  ///< the peer's, as this GPU addresses it; null where it cannot
  bool pulls = true;           ///< DeviceTransfer::pulls, unless the plan says who moves the data
};

/// The transfers of `rank`, with both their ends where this rank moves the data. Materialises the
/// plans of the peers that are addressed. Throws Unsupported where a transfer touches a caller's
/// tensor that this rank does not move itself: plans for GPUs are made with stage_caller. Where
/// such a tensor lies is known in a call: DeviceLink::set_own.
std::vector<comm::DeviceTransfer> device_transfers(
    const Plan& plan, const RankPlan& rank, const Memory& memory,
    const std::function<TransferReach(const Transfer&)>& reach_of);

/// Transfers with an end in a caller's tensor, by its role.
std::map<Role, std::vector<std::int32_t>> caller_transfers(const RankPlan& rank);

}  // namespace annulus::attn
