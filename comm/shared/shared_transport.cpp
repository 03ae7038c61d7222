#include "comm/shared/shared_transport.h"

#include "comm/backoff.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::comm::shared {
namespace {

/// Copied between two looks at mailboxes and failures: a fraction of a millisecond.
constexpr std::int64_t kPiece = std::int64_t{1} << 20;
/// Failures of other ranks come by messages, which wake nobody.
constexpr auto kLongestSleep = std::chrono::milliseconds(2);
/// How often failures are asked for while no message is in flight; a look takes a microsecond.
constexpr auto kMessageGap = std::chrono::microseconds(300);

/// Removes and returns the oldest entry of a key, if there is one.
template <typename Map>
std::optional<typename Map::mapped_type> take_first(Map& map, const typename Map::key_type& key) {
  const auto first = map.lower_bound(key);
  if (first == map.end() || first->first != key) return std::nullopt;
  const auto value = first->second;
  map.erase(first);
  return value;
}

}  // namespace

/// Arenas have numbers that agree between ranks, since making one is collective.
class SharedTransport::SharedArena final : public Arena {
 public:
  SharedArena(SharedTransport& transport, std::optional<SharedMemory> own, PeerMemories peers)
      : transport_(transport), own_(std::move(own)), peers_(std::move(peers)) {
    transport_.arenas_.push_back(this);
  }
  ~SharedArena() override { std::ranges::replace(transport_.arenas_, this, nullptr); }

  std::span<std::byte> bytes() const override {
    if (!own_) return {};
    return {own_->data(), static_cast<std::size_t>(own_->bytes())};
  }
  const SharedMemory* of(int peer) const {
    const auto& memory = peers_[static_cast<std::size_t>(peer)];
    return memory ? &*memory : nullptr;
  }

 private:
  SharedTransport& transport_;
  std::optional<SharedMemory> own_;  ///< none where this rank has an arena of another kind
  PeerMemories peers_;
};

SharedTransport::SharedTransport(int rank, HostGroup group, Transport& messages, bool crowded)
    : rank_(rank),
      group_(std::move(group)),
      messages_(messages),
      crowded_(crowded),
      outbox_(static_cast<std::size_t>(group_.size())) {}

std::unique_ptr<Arena> SharedTransport::make_arena(std::int64_t bytes, const Gather& gather) {
  std::optional<SharedMemory> own;
  if (bytes > 0) own = SharedMemory::create(bytes);
  const bool ready = bytes == 0 || own.has_value();
  std::optional<PeerMemories> peers = group_.exchange(own ? &*own : nullptr, ready, gather);
  if (peers) return std::make_unique<SharedArena>(*this, std::move(own), std::move(*peers));
  arenas_.push_back(nullptr);
  return std::make_unique<PrivateArena>(bytes);
}

Transport::Ticket SharedTransport::start(const TransferEnd& end) {
  Flight flight{.end = end};
  const bool neighbour = end.peer >= 0 && end.peer < group_.size() && group_.holds(end.peer);
  if (!neighbour || cancelled_)
    by_message(flight);  // which refuses what is wrong
  else if (end.region.bytes() == 0)
    flight.state = Flight::State::whole;
  const Ticket ticket = flights_.add(flight);
  if (flight.state != Flight::State::waiting) return ticket;
  if (end.sends) {
    say(end.peer, {.word = Word::offer,
                   .tag = end.tag,
                   .sender = ticket,
                   .bytes = end.region.bytes(),
                   .place = place_of(end.region)});
    return ticket;
  }
  const Key key{end.peer, end.tag};
  if (const std::optional<Message> offer = take_first(offered_, key)) {
    meet(ticket, *offer);
  } else {
    expecting_.emplace(key, ticket);
  }
  return ticket;
}

/// The receiver decides how its transfer goes.
void SharedTransport::meet(Ticket ticket, const Message& offer) {
  Flight& flight = flights_.at(ticket);
  if (offer.bytes != flight.end.region.bytes()) {
    throw CommError(
        fmt::format("transfer {} -> {}, tag {}: the sender has {} bytes, the receiver expects {}",
                    flight.end.peer, rank_, offer.tag, offer.bytes, flight.end.region.bytes()));
  }
  Message answer = offer;
  answer.receiver = ticket;
  answer.place = place_of(flight.end.region);
  if (offer.place.arena >= 0) return begin_copy(flight, offer.place, Word::fetched, answer);
  answer.word = answer.place.arena >= 0 ? Word::push : Word::otherwise;
  say(flight.end.peer, answer);
  if (answer.word == Word::otherwise) by_message(flight);
}

void SharedTransport::begin_copy(Flight& flight, const Place& theirs, Word when_whole,
                                 const Message& heard) {
  const auto [memory, region] = find(flight.end.peer, theirs);
  const bool fetches = when_whole == Word::fetched;
  flight.copy.emplace(fetches ? region : flight.end.region, fetches ? flight.end.region : region);
  flight.foreign = memory;
  flight.reply = heard;
  flight.reply.word = when_whole;
  flight.state = Flight::State::copying;
  ++copies_;
}

void SharedTransport::by_message(Flight& flight) {
  flight.message = messages_.start(flight.end);
  flight.state = Flight::State::message;
  ++by_message_;
}

void SharedTransport::advance(Flight& flight) {
  const RegionCopy::Part part = flight.copy->advance(kPiece);
  const bool fetches = flight.reply.word == Word::fetched;
  const Span foreign = fetches ? part.source : part.target;
  flight.foreign->step_back(foreign.low, foreign.high);
  if (!flight.copy->done()) return;
  flight.state = Flight::State::whole;
  --copies_;
  say(flight.end.peer, flight.reply);
}

void SharedTransport::hear(int peer, const Message& message) {
  switch (message.word) {
    case Word::offer: {
      const Key key{peer, message.tag};
      if (const std::optional<Ticket> ticket = take_first(expecting_, key)) {
        return meet(*ticket, message);
      }
      offered_.emplace(key, message);
      return;
    }
    case Word::fetched:
      flights_.at(message.sender).state = Flight::State::whole;
      return;
    case Word::pushed:
      flights_.at(message.receiver).state = Flight::State::whole;
      return;
    case Word::push:
      return begin_copy(flights_.at(message.sender), message.place, Word::pushed, message);
    case Word::otherwise:
      return by_message(flights_.at(message.sender));
  }
}

void SharedTransport::say(int peer, const Message& message) {
  auto& waiting = outbox_[static_cast<std::size_t>(peer)];
  waiting.push_back(message);
  flush(peer);
}

bool SharedTransport::flush(int peer) {
  auto& waiting = outbox_[static_cast<std::size_t>(peer)];
  bool any = false;
  for (; !waiting.empty() && group_.to(peer).put(waiting.front()); any = true) waiting.pop_front();
  if (any) group_.wake(peer);
  return waiting.empty();
}

void SharedTransport::poll_messages() {
  const auto now = std::chrono::steady_clock::now();
  if (in_messages() || now - polled_ >= kMessageGap) {
    polled_ = now;
    messages_.progress();
  }
}

void SharedTransport::progress() {
  poll_messages();
  if (cancelled_) return;
  for (int peer = 0; peer < group_.size(); ++peer) {
    if (!group_.holds(peer)) continue;
    flush(peer);
    for (Message message; group_.from(peer).take(message);) hear(peer, message);
  }
  if (copies_ == 0) return;
  flights_.for_each([this](Flight& flight) {
    if (flight.state == Flight::State::copying) advance(flight);
  });
}

void SharedTransport::rest(Backoff& backoff) {
  if (copies_ > 0) return;
  if (in_messages()) return messages_.rest(backoff);
  // With a core for each rank a poll takes from nobody, and sees a word at once.
  const bool full = std::ranges::any_of(outbox_, [](const auto& words) { return !words.empty(); });
  if (!crowded_ || full) return backoff.idle(false);
  group_.sleep(kLongestSleep);
}

bool SharedTransport::done(Ticket ticket) {
  Flight& flight = flights_.at(ticket);
  const bool by_message = flight.state == Flight::State::message;
  if (by_message ? !messages_.done(flight.message) : flight.state != Flight::State::whole) {
    return false;
  }
  // Whoever is through may not poll again soon, so the word to the other end must be out.
  if (!by_message && !flush(flight.end.peer)) return false;
  if (by_message) --by_message_;
  // `messages` counts its own.
  if (flight.end.sends && !by_message) bytes_sent_ += flight.end.region.bytes();
  flights_.remove(ticket);
  return true;
}

void SharedTransport::cancel() noexcept {
  cancelled_ = true;
  copies_ = by_message_ = 0;
  flights_.clear();
  messages_.cancel();
}

Place SharedTransport::place_of(const Region& region) const {
  Place place{.count = region.count, .stride = region.stride, .run = region.run};
  for (std::size_t i = 0; i < arenas_.size(); ++i) {
    if (arenas_[i] == nullptr) continue;
    const std::span<std::byte> own = arenas_[i]->bytes();
    if (region.base < own.data() || region.base >= own.data() + own.size()) continue;
    place.arena = static_cast<std::int32_t>(i);
    place.offset = region.base - own.data();
  }
  return place;
}

std::pair<const SharedMemory*, Region> SharedTransport::find(int peer, const Place& place) const {
  const auto index = static_cast<std::size_t>(place.arena);
  const SharedArena* arena = index < arenas_.size() ? arenas_[index] : nullptr;
  const SharedMemory* memory = arena != nullptr ? arena->of(peer) : nullptr;
  if (memory == nullptr) {
    throw CommError(fmt::format("rank {}: rank {} names its arena {}, which is not mapped here",
                                rank_, peer, place.arena));
  }
  return {memory, Region{.base = memory->data() + place.offset,
                         .count = place.count,
                         .stride = place.stride,
                         .run = place.run}};
}

}  // namespace annulus::comm::shared
