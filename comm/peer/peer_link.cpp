#include "comm/peer/peer_link.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <utility>

namespace annulus::comm::peer {

PeerLink::PeerLink(const Driver& driver, int rank, std::vector<ControlBlock> blocks,
                   std::vector<DeviceTransfer> transfers, std::uint32_t hash)
    : driver_(driver),
      rank_(rank),
      blocks_(std::move(blocks)),
      transfers_(std::move(transfers)),
      hash_(hash) {
  for (const DeviceTransfer& t : transfers_) {
    if (t.tag >= ControlBlock::kTags) {
      throw Unsupported(fmt::format("peer transport: {} transfers with rank {}, at most {}",
                                    t.tag + 1, t.peer, ControlBlock::kTags));
    }
    pulls_.push_back(t.sends ? std::vector<Plane>{} : planes(t.theirs, t.own));
  }
}

bool PeerLink::sends_by_flag(std::int32_t transfer) const { return at(transfer).sends; }

void PeerLink::start(std::int32_t transfer, const LinkStream& on) const {
  const DeviceTransfer& t = at(transfer);
  if (t.sends) {
    StreamBatch ready(driver_);
    ready.write(of(t.peer).ready(rank_, t.tag), hash_);
    ready.enqueue(on.stream);
    return;
  }
  StreamBatch wait(driver_);
  wait.write(on.awaited, static_cast<std::uint32_t>(transfer) + 1);
  wait.consume(of(rank_).ready(t.peer, t.tag));
  wait.write(on.awaited, 0);
  wait.enqueue(on.stream);
  for (const Plane& plane : pulls_[static_cast<std::size_t>(transfer)]) copy(on.stream, plane);
  StreamBatch free(driver_);
  free.write(of(t.peer).free(rank_, t.tag), hash_);
  free.enqueue(on.stream);
}

void PeerLink::await_free(std::span<const std::int32_t> sends, const LinkStream& on) const {
  for (const std::int32_t i : sends) {
    StreamBatch wait(driver_);
    wait.write(on.awaited, static_cast<std::uint32_t>(i) + 1);
    wait.consume(of(rank_).free(at(i).peer, at(i).tag));
    wait.write(on.awaited, 0);
    wait.enqueue(on.stream);
  }
}

}  // namespace annulus::comm::peer
