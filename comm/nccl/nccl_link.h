#pragma once

#include "comm/device/device_link.h"
#include "comm/nccl/nccl_communicator.h"
#include "comm/nccl/pack.h"
#include "comm/nccl/staging.h"
#include "comm/peer/driver.h"
#include "runtime/base/device_pool.h"

#include <cstdint>
#include <map>
#include <span>
#include <vector>

namespace annulus::comm::nccl {

/// One plan's transfers through NCCL: those of a round are one launch. What is not one piece of
/// memory is packed into staging memory and from there. No rank waits for another outside of
/// launches, and ranks launch rounds in the same order, so that they cannot wait in a circle.
class NcclLink final : public DeviceLink {
 public:
  /// On the current device. `moves`: by transfer, whether it goes through here. `communicator` may
  /// be null where nothing moves and must outlive this, as must `staging`, which has to have room
  /// for the largest round. What says how to pack is taken of `pool`, and there once what the
  /// pool's stream holds now is over.
  NcclLink(const peer::Driver& driver, const NcclCommunicator* communicator,
           std::vector<DeviceTransfer> transfers, const std::vector<bool>& moves, DevicePool& pool,
           Staging* staging);

  const char* name() const override { return "nccl"; }
  std::int32_t group_end(std::int32_t transfer) const override {
    return ends_[static_cast<std::size_t>(transfer)];
  }
  bool by_flag(std::int32_t) const override { return false; }
  void start(std::int32_t transfer, const LinkStream& on) const override;
  void await_over(std::span<const std::int32_t>, const LinkStream&) const override {}

 private:
  struct Round {
    std::vector<Message> messages;
    PackLaunch pack, unpack;
  };

  void make_rounds(const std::vector<DeviceTransfer>& transfers, const std::vector<bool>& moves,
                   DevicePool& pool, Staging* staging);

  const peer::Driver& driver_;
  const NcclCommunicator* communicator_;
  std::vector<std::int32_t> ends_;
  std::map<std::int32_t, Round> rounds_;  ///< by the transfer that starts it
  PoolBuffer jobs_;
};

}  // namespace annulus::comm::nccl
