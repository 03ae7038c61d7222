#include "comm/shared/host_group.h"

#include <algorithm>
#include <new>
#include <utility>

namespace annulus::comm::shared {
namespace {

bool all_say_yes(bool mine, std::size_t ranks, const Gather& gather, std::string_view what) {
  const auto yes = static_cast<std::byte>(mine ? 1 : 0);
  std::vector<std::byte> all(ranks);
  gather(std::span(&yes, 1), all, what);
  return std::ranges::all_of(all, [](std::byte b) { return b == std::byte{1}; });
}

/// Two collectives: names go round, then ranks say whether they could open what they need.
template <typename IsPeer>
std::optional<PeerMemories> open_all(SharedMemory* own, bool ready, std::size_t ranks,
                                     const Gather& gather, std::string_view what, IsPeer is_peer) {
  const MemoryName name = own != nullptr ? own->name() : MemoryName{};
  std::vector<MemoryName> names(ranks);
  gather(std::as_bytes(std::span(&name, 1)), std::as_writable_bytes(std::span(names)), what);
  PeerMemories memories(ranks);
  bool whole = ready;
  for (std::size_t peer = 0; peer < ranks; ++peer) {
    if (!is_peer(peer) || names[peer].bytes == 0) continue;
    memories[peer] = SharedMemory::open(names[peer]);
    whole = whole && memories[peer].has_value();
  }
  const bool agreed = all_say_yes(whole, ranks, gather, what);
  if (own != nullptr) own->hide();
  if (!agreed) return std::nullopt;
  return memories;
}

}  // namespace

std::optional<HostGroup> HostGroup::make(int rank, std::span<const std::uint64_t> host,
                                         const Gather& gather) {
  const std::size_t ranks = host.size();
  const auto me = static_cast<std::size_t>(rank);
  const auto is_peer = [&](std::size_t peer) { return peer != me && host[peer] == host[me]; };
  // Every rank knows all hosts, so that all leave here or none.
  bool any = false;
  for (std::size_t i = 0; i < ranks; ++i) any |= std::ranges::count(host, host[i]) > 1;
  if (!any) return std::nullopt;
  auto own =
      SharedMemory::create(static_cast<std::int64_t>(sizeof(Bell) + ranks * sizeof(Mailbox)));
  if (own) {
    new (&bell(*own)) Bell;
    // Those of other hosts' ranks are never touched, and so cost no memory.
    for (std::size_t i = 0; i < ranks; ++i) {
      if (is_peer(i)) new (boxes(*own) + i) Mailbox;
    }
  }
  auto peers =
      open_all(own ? &*own : nullptr, own.has_value(), ranks, gather, "mesh set-up", is_peer);
  if (!peers) return std::nullopt;
  HostGroup group(rank, std::move(*own));
  group.peers_ = std::move(*peers);
  return group;
}

void HostGroup::sleep(std::chrono::microseconds longest) {
  bell(own_).wait(longest, [this] {
    for (int peer = 0; peer < size(); ++peer) {
      if (holds(peer) && !from(peer).empty()) return true;
    }
    return false;
  });
}

std::optional<PeerMemories> HostGroup::exchange(SharedMemory* own, bool ready,
                                                const Gather& gather) const {
  return open_all(own, ready, peers_.size(), gather, "session memory",
                  [&](std::size_t peer) { return holds(static_cast<int>(peer)); });
}

}  // namespace annulus::comm::shared
