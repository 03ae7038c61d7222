#pragma once

#include "comm/arena.h"
#include "comm/region_copy.h"
#include "comm/shared/host_group.h"
#include "comm/slots.h"

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <utility>
#include <vector>

namespace annulus::comm::shared {

/// Transfers between processes of one host whose arenas lie in shared memory: one memcpy, and two
/// words in mailboxes. The receiver fetches what lies in the sender's arena; what does not, the
/// sender pushes into the receiver's; where neither end is in an arena, and for ranks of other
/// hosts, `messages` carries it.
///
/// Transfers of one (sender, receiver, tag) meet in order: mailboxes keep theirs, and so do both
/// queues of what waits for its other end.
class SharedTransport final : public Transport {
 public:
  /// `messages` outlives it and is used by it alone. `crowded`: this host has more ranks than
  /// cores.
  SharedTransport(int rank, HostGroup group, Transport& messages, bool crowded);

  const char* name() const override { return messages_.name(); }
  Ticket start(const TransferEnd& end) override;
  bool done(Ticket ticket) override;
  void progress() override;
  void rest(Backoff& backoff) override;
  void cancel() noexcept override;
  std::int64_t bytes_sent() const override { return bytes_sent_ + messages_.bytes_sent(); }

  bool idle() const { return flights_.empty() && !cancelled_; }

  /// Collective. Memory that neighbours can map; this process's own where one of them cannot, or
  /// where `bytes` is 0.
  std::unique_ptr<Arena> make_arena(std::int64_t bytes, const Gather& gather);

 private:
  class SharedArena;
  struct Flight {
    enum class State { waiting, copying, whole, message } state = State::waiting;
    TransferEnd end{};
    std::optional<RegionCopy> copy{};
    Message reply{};                        ///< to the other end, when the copy is whole
    const SharedMemory* foreign = nullptr;  ///< what the copy reads, or writes, of the peer
    Ticket message = -1;                    ///< of `messages`
  };
  using Key = std::pair<int, std::int32_t>;  ///< peer, tag

  void say(int peer, const Message& message);
  /// True if all that was said is in the peer's mailbox.
  bool flush(int peer);
  void hear(int peer, const Message& message);
  void meet(Ticket ticket, const Message& offer);
  void begin_copy(Flight& flight, const Place& theirs, Word when_whole, const Message& heard);
  void by_message(Flight& flight);
  void advance(Flight& flight);
  bool in_messages() const { return by_message_ > 0; }
  void poll_messages();

  Place place_of(const Region& region) const;
  std::pair<const SharedMemory*, Region> find(int peer, const Place& place) const;

  const int rank_;
  HostGroup group_;
  Transport& messages_;
  const bool crowded_;
  Slots<Flight> flights_;
  int copies_ = 0;      ///< flights that are being copied
  int by_message_ = 0;  ///< flights that `messages` carries
  // Equal keys keep their order, and a plan's tags leave nothing behind.
  std::multimap<Key, Ticket> expecting_;          ///< receives without an offer
  std::multimap<Key, Message> offered_;           ///< offers without a receive
  std::vector<std::deque<Message>> outbox_;       ///< by peer: what found its mailbox full
  std::vector<const SharedArena*> arenas_;        ///< by number; null: gone
  std::chrono::steady_clock::time_point polled_;  ///< `messages`
  std::int64_t bytes_sent_ = 0;
  bool cancelled_ = false;
};

}  // namespace annulus::comm::shared
