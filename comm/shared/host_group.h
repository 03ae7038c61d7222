#pragma once

#include "comm/shared/bell.h"
#include "comm/shared/mailbox.h"
#include "comm/shared/memory.h"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

namespace annulus::comm::shared {

/// Communicator::all_gather.
using Gather = std::function<void(std::span<const std::byte> mine, std::span<std::byte> all,
                                  std::string_view what)>;

/// One memory of each rank, as this process sees it: empty for ranks of other hosts, for this rank
/// and for ranks that brought none.
using PeerMemories = std::vector<std::optional<SharedMemory>>;

/// The processes of one host that can map each other's memory, and the mailboxes between them.
class HostGroup {
 public:
  /// Collective over all ranks. `host` says which ranks may be on one host. Empty, on every rank
  /// alike, where no rank has a neighbour or where one rank cannot reach a neighbour: containers
  /// of their own, hosts of one name.
  static std::optional<HostGroup> make(int rank, std::span<const std::uint64_t> host,
                                       const Gather& gather);

  bool holds(int peer) const { return peers_[static_cast<std::size_t>(peer)].has_value(); }
  int size() const { return static_cast<int>(peers_.size()); }

  /// What `peer` writes to this rank, and what this rank writes to `peer`.
  Mailbox& from(int peer) { return boxes(own_)[peer]; }
  Mailbox& to(int peer) { return boxes(memory_of(peer))[rank_]; }

  /// Until a word is in a mailbox of this rank, or for `longest`. Whoever put one calls wake().
  void sleep(std::chrono::microseconds longest);
  void wake(int peer) { bell(memory_of(peer)).ring(); }

  /// Collective over all ranks, as make(): the memories of the others of this host. `own` may be
  /// null: this rank brings none. Empty on every rank if one is not `ready` or cannot open one.
  std::optional<PeerMemories> exchange(SharedMemory* own, bool ready, const Gather& gather) const;

 private:
  HostGroup(int rank, SharedMemory own) : rank_(rank), own_(std::move(own)) {}
  /// A rank's memory: a bell, and a mailbox for each rank of the world.
  static Bell& bell(const SharedMemory& memory) { return *reinterpret_cast<Bell*>(memory.data()); }
  static Mailbox* boxes(const SharedMemory& memory) {
    return reinterpret_cast<Mailbox*>(memory.data() + sizeof(Bell));
  }
  const SharedMemory& memory_of(int peer) const { return *peers_[static_cast<std::size_t>(peer)]; }

  int rank_;
  SharedMemory own_;
  PeerMemories peers_;
};

}  // namespace annulus::comm::shared
