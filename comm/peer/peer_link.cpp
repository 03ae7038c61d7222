#include "comm/peer/peer_link.h"

#include "comm/device/rounds.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <utility>

namespace annulus::comm::peer {
namespace {

/// None where the other end moves the data, or cannot be addressed and is another link's.
std::vector<Plane> copies_of(const DeviceTransfer& t) {
  if (t.sends == t.pulls || t.theirs.bytes() == 0) return {};
  return t.sends ? planes(t.own, t.theirs) : planes(t.theirs, t.own);
}

}  // namespace

PeerLink::PeerLink(const Driver& driver, int rank, std::vector<ControlBlock> blocks,
                   std::vector<DeviceTransfer> transfers, std::uint32_t hash, bool own_gpus)
    : driver_(driver),
      rank_(rank),
      blocks_(std::move(blocks)),
      transfers_(std::move(transfers)),
      value_(signal_value(hash)),
      own_gpus_(own_gpus),
      pending_(driver, nullptr) {
  for (const DeviceTransfer& t : transfers_) {
    if (t.tag >= ControlBlock::kTags) {
      throw Unsupported(fmt::format("peer transport: {} transfers with rank {}, at most {}",
                                    t.tag + 1, t.peer, ControlBlock::kTags));
    }
    copies_.push_back(copies_of(t));
  }
  std::vector<RoundMember> members;
  for (std::size_t i = 0; i < transfers_.size(); ++i) {
    members.push_back({transfers_[i].round, !copies_[i].empty()});
  }
  ends_ = round_ends(members);
  groups_.resize(ends_.size());
  for (std::size_t i = 0; i < ends_.size(); ++i) {
    groups_[static_cast<std::size_t>(ends_[i])].push_back(static_cast<std::int32_t>(i));
  }
}

std::uint32_t* PeerLink::raised(const DeviceTransfer& t) const {
  return t.sends ? of(t.peer).ready(rank_, t.tag) : of(t.peer).free(rank_, t.tag);
}

std::uint32_t* PeerLink::awaited(const DeviceTransfer& t) const {
  return t.sends ? of(rank_).free(t.peer, t.tag) : of(rank_).ready(t.peer, t.tag);
}

bool PeerLink::by_flag(std::int32_t transfer) const {
  return at(transfer).sends == at(transfer).pulls;
}

void PeerLink::set_own(std::int32_t transfer, const Region& own) {
  const auto i = static_cast<std::size_t>(transfer);
  if (transfers_[i].own == own) return;  // as in most calls
  transfers_[i].own = own;
  copies_[i] = copies_of(transfers_[i]);
}

DeviceLink::Signal PeerLink::awaited_signal(std::int32_t transfer) const {
  return {awaited(at(transfer)), value_};
}

bool PeerLink::beside_kernels(std::int32_t transfer) const {
  return own_gpus_ && at(transfer).peer != rank_;
}

void PeerLink::raise(std::span<const std::int32_t> flags, const LinkStream& on) const {
  StreamBatch& batch = pending(on);
  for (const std::int32_t i : flags) batch.write(raised(at(i)), value_);
}

void PeerLink::await(std::span<const std::int32_t> transfers, const LinkStream& on) const {
  StreamBatch& batch = pending(on);
  for (const std::int32_t i : transfers) {
    batch.write(on.awaited, static_cast<std::uint32_t>(i) + 1);
    batch.await(awaited(at(i)), value_);
  }
}

/// Behind the copies and not before them, which so start as soon as they may: each write waits
/// until what was written before it has arrived.
void PeerLink::consume(std::span<const std::int32_t> transfers, const LinkStream& on) const {
  for (const std::int32_t i : transfers) pending(on).write(awaited(at(i)), 0);
}

/// The note, last, is one write with the next one of the same batch.
void PeerLink::wait_for_none(const LinkStream& on) const { pending(on).write(on.awaited, 0); }

/// The last one stays noted: a kernel waits for the copies, which therefore have a deadline too.
void PeerLink::await_sources(std::span<const std::int32_t> transfers, const LinkStream& on) const {
  await(transfers, on);
}

void PeerLink::release(std::span<const std::int32_t> transfers, const LinkStream& on) const {
  consume(transfers, on);  // before their writers may raise them again
  raise(transfers, on);
  wait_for_none(on);
}

void PeerLink::move(std::int32_t transfer, const LinkStream& on) const {
  flush();
  for (const Plane& plane : copies_[static_cast<std::size_t>(transfer)]) copy(on.stream, plane);
}

void PeerLink::start(std::int32_t transfer, const LinkStream& on) const {
  const std::vector<std::int32_t>& group = groups_[static_cast<std::size_t>(transfer)];
  if (group.empty()) return;  // starts with its last one
  if (by_flag(transfer)) return raise(group, on);
  await(group, on);
  for (const std::int32_t i : group) move(i, on);
  release(group, on);
}

/// No copy stands behind these: each is reset while the next one is awaited.
void PeerLink::await_over(std::span<const std::int32_t> flags, const LinkStream& on) const {
  if (flags.empty()) return;
  for (std::size_t i = 0; i < flags.size(); ++i) {
    await(flags.subspan(i, 1), on);
    consume(flags.subspan(i, 1), on);
  }
  wait_for_none(on);
}

void PeerLink::write(std::uint32_t* word, std::uint32_t value, const LinkStream& on) const {
  pending(on).write(word, value);
}

void PeerLink::await_count(std::uint32_t* word, std::uint32_t count, const LinkStream& on) const {
  pending(on).await(word, count);
}

StreamBatch& PeerLink::pending(const LinkStream& on) const {
  pending_.turn_to(on.stream);
  return pending_;
}

void PeerLink::flush() const { pending_.enqueue(); }

}  // namespace annulus::comm::peer
