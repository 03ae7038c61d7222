#pragma once

#include "comm/local/exchange.h"
#include "runtime/base/clock.h"

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::comm::local {

/// What the ranks of one process share.
class Board {
 public:
  explicit Board(int size);

  int size() const { return size_; }
  Exchange& exchange() { return exchange_; }

  /// The round-th collective of every rank. `check` is called now and then and may throw.
  /// Throws Timeout naming the ranks that are not there.
  void gather(std::uint64_t round, int rank, std::span<const std::byte> mine,
              std::span<std::byte> all, std::string_view what, const Deadline& deadline,
              const std::function<void()>& check);

  /// First report of a failure, as the text of `rank`'s CommError; nothing while all is well.
  std::optional<std::string> failure_seen_by(int rank) const;

  std::vector<std::optional<std::string>> report(int rank, std::string_view reason,
                                                 const Deadline& grace);

 private:
  using Bytes = std::vector<std::byte>;
  struct Round {
    std::vector<std::optional<Bytes>> parts;
    int arrived = 0;
    std::optional<std::string> given_up;  // by a rank that waited too long
  };
  std::shared_ptr<Round> arrive(std::uint64_t number, int rank, std::span<const std::byte> mine);

  const int size_;
  Exchange exchange_;
  mutable std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::map<std::uint64_t, std::shared_ptr<Round>> rounds_;
  std::vector<std::optional<std::string>> reports_;
  int reported_ = 0;
  std::atomic<int> first_failed_{-1};  // read without the mutex in every poll
};

}  // namespace annulus::comm::local
