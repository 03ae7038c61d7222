#pragma once

#include "comm/device/device_link.h"
#include "comm/peer/control_block.h"
#include "comm/peer/driver.h"
#include "comm/peer/stream_ops.h"

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::comm::peer {

/// One plan's transfers inside a host. A send raises `ready`; a receive waits for it, pulls by a
/// copy engine and raises `free`. No SM is used.
class PeerLink final : public DeviceLink {
 public:
  /// `blocks`: of every rank, as this GPU addresses them. `hash`: of the plan, not 0.
  PeerLink(const Driver& driver, int rank, std::vector<ControlBlock> blocks,
           std::vector<DeviceTransfer> transfers, std::uint32_t hash);

  const char* name() const override { return "peer"; }
  std::int32_t group_end(std::int32_t transfer) const override { return transfer; }
  bool sends_by_flag(std::int32_t transfer) const override;
  void start(std::int32_t transfer, const LinkStream& on) const override;
  void await_free(std::span<const std::int32_t> sends, const LinkStream& on) const override;

 private:
  const DeviceTransfer& at(std::int32_t i) const { return transfers_[static_cast<std::size_t>(i)]; }
  const ControlBlock& of(int rank) const { return blocks_[static_cast<std::size_t>(rank)]; }

  const Driver& driver_;
  int rank_;
  std::vector<ControlBlock> blocks_;
  std::vector<DeviceTransfer> transfers_;
  std::vector<std::vector<Plane>> pulls_;  ///< by transfer
  std::uint32_t hash_;
};

}  // namespace annulus::comm::peer
