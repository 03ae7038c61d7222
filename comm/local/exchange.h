#pragma once

#include "comm/transport.h"

#include <atomic>
#include <compare>
#include <deque>
#include <map>
#include <memory>
#include <mutex>

namespace annulus::comm::local {

/// Names the two ends of a transfer.
struct Key {
  int sender = 0;
  int receiver = 0;
  std::int32_t tag = 0;
  auto operator<=>(const Key&) const = default;
};

/// open: one end is missing. ready: both are there. copying: one thread moves the bytes.
/// dropped: an end was cancelled, so its memory may not be touched any more.
enum class MatchState : int { open, ready, copying, done, dropped };

struct Match {
  Region source;
  Region target;
  std::atomic<MatchState> state{MatchState::open};

  bool done() const { return state.load(std::memory_order_acquire) == MatchState::done; }

  /// Copies if both ends are there and nobody did. True if this call copied.
  bool try_copy();

  /// After it returned nobody reads or writes the regions. Waits for a copy that is under way,
  /// which never waits itself.
  void drop() noexcept;
};

/// Where threads find each other's ends. Ends of one key match in the order in which they come.
class Exchange {
 public:
  /// Throws CommError if the ends have different numbers of bytes.
  std::shared_ptr<Match> join(const Key& key, bool sends, const Region& region);

 private:
  struct Waiting {
    std::shared_ptr<Match> match;
    bool has_source;
  };
  std::mutex mutex_;
  std::map<Key, std::deque<Waiting>> waiting_;
};

}  // namespace annulus::comm::local
