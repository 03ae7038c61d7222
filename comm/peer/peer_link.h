#pragma once

#include "comm/device/device_link.h"
#include "comm/peer/control_block.h"
#include "comm/peer/driver.h"
#include "comm/peer/stream_ops.h"

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::comm::peer {

/// One plan's transfers inside a host. Where receivers pull, a send raises `ready`; the receive
/// waits for it, copies by a copy engine and raises `free`. Where senders push, a receive raises
/// `free` when its destination is; the send waits for it, copies and raises `ready`. No SM is used.
/// What this rank moves in one round is a group: all waits in one call, the copies, then all flags.
class PeerLink final : public DeviceLink {
 public:
  /// `blocks`: of every rank, as this GPU addresses them. `hash`: of the plan, not 0. `own_gpus`:
  /// every rank has a GPU of its own, so that copies do not run on one that a kernel fills.
  PeerLink(const Driver& driver, int rank, std::vector<ControlBlock> blocks,
           std::vector<DeviceTransfer> transfers, std::uint32_t hash, bool own_gpus);

  const char* name() const override { return "peer"; }
  std::int32_t group_end(std::int32_t transfer) const override {
    return ends_[static_cast<std::size_t>(transfer)];
  }
  bool by_flag(std::int32_t transfer) const override;
  void set_own(std::int32_t transfer, const Region& own) override;
  bool beside_kernels(std::int32_t transfer) const override;
  void start(std::int32_t transfer, const LinkStream& on) const override;
  void raise(std::span<const std::int32_t> flags, const LinkStream& on) const override;
  void await_sources(std::span<const std::int32_t> transfers, const LinkStream& on) const override;
  void move(std::int32_t transfer, const LinkStream& on) const override;
  void release(std::span<const std::int32_t> transfers, const LinkStream& on) const override;
  void write(std::uint32_t* word, std::uint32_t value, const LinkStream& on) const override;
  void await_count(std::uint32_t* word, std::uint32_t count, const LinkStream& on) const override;
  void await_over(std::span<const std::int32_t> flags, const LinkStream& on) const override;
  void flush() const override;
  Signal awaited_signal(std::int32_t transfer) const override;

 private:
  /// Until the other ends of these say so. The signals stay; consume() resets them, and
  /// wait_for_none() says that the stream waits no more.
  void await(std::span<const std::int32_t> transfers, const LinkStream& on) const;
  void consume(std::span<const std::int32_t> transfers, const LinkStream& on) const;
  void wait_for_none(const LinkStream& on) const;
  StreamBatch& pending(const LinkStream& on) const;
  const DeviceTransfer& at(std::int32_t i) const { return transfers_[static_cast<std::size_t>(i)]; }
  const ControlBlock& of(int rank) const { return blocks_[static_cast<std::size_t>(rank)]; }
  /// What this end raises in the other rank's memory, and what it waits for in its own.
  std::uint32_t* raised(const DeviceTransfer& t) const;
  std::uint32_t* awaited(const DeviceTransfer& t) const;

  const Driver& driver_;
  int rank_;
  std::vector<ControlBlock> blocks_;
  std::vector<DeviceTransfer> transfers_;
  std::vector<std::vector<Plane>> copies_;         ///< by transfer
  std::vector<std::int32_t> ends_;                 ///< by transfer
  std::vector<std::vector<std::int32_t>> groups_;  ///< by transfer that ends one; else empty
  std::uint32_t value_;
  bool own_gpus_;
  mutable StreamBatch pending_;  ///< of one call, which is enqueued by one thread
};

}  // namespace annulus::comm::peer
