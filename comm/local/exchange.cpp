#include "comm/local/exchange.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <thread>

namespace annulus::comm::local {

bool Match::try_copy() {
  MatchState expected = MatchState::ready;
  if (!state.compare_exchange_strong(expected, MatchState::copying, std::memory_order_acq_rel)) {
    return false;
  }
  copy_region(source, target);
  state.store(MatchState::done, std::memory_order_release);
  return true;
}

void Match::drop() noexcept {
  MatchState now = state.load(std::memory_order_acquire);
  while (now != MatchState::done && now != MatchState::dropped) {
    if (now == MatchState::copying) {
      std::this_thread::yield();
      now = state.load(std::memory_order_acquire);
    } else {
      state.compare_exchange_weak(now, MatchState::dropped, std::memory_order_acq_rel);
    }
  }
}

std::shared_ptr<Match> Exchange::join(const Key& key, bool sends, const Region& region) {
  const std::scoped_lock lock(mutex_);
  auto& queue = waiting_[key];
  if (queue.empty() || queue.front().has_source == sends) {
    auto match = std::make_shared<Match>();
    (sends ? match->source : match->target) = region;
    queue.push_back({match, sends});
    return match;
  }
  const std::shared_ptr<Match> match = queue.front().match;
  queue.pop_front();
  if (queue.empty()) waiting_.erase(key);
  (sends ? match->source : match->target) = region;
  if (match->source.bytes() != match->target.bytes()) {
    throw CommError(fmt::format(
        "transfer {} -> {}, tag {}: the sender has {} bytes, the receiver expects {}", key.sender,
        key.receiver, key.tag, match->source.bytes(), match->target.bytes()));
  }
  MatchState expected = MatchState::open;  // stays `dropped` if the other end was cancelled
  match->state.compare_exchange_strong(expected, MatchState::ready, std::memory_order_acq_rel);
  return match;
}

}  // namespace annulus::comm::local
