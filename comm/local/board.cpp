#include "comm/local/board.h"

#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

namespace annulus::comm::local {

namespace {

// abort() may come from a signal handler, which cannot notify: waits look around this often.
constexpr auto kSlice = std::chrono::milliseconds(5);

std::vector<int> missing_ranks(const std::vector<std::optional<std::vector<std::byte>>>& parts) {
  std::vector<int> missing;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i]) missing.push_back(static_cast<int>(i));
  }
  return missing;
}

}  // namespace

Board::Board(int size) : size_(size), reports_(static_cast<std::size_t>(size)) {}

std::shared_ptr<Board::Round> Board::arrive(std::uint64_t number, int rank,
                                            std::span<const std::byte> mine) {
  std::shared_ptr<Round>& entry = rounds_[number];
  if (!entry) {
    entry = std::make_shared<Round>();
    entry->parts.resize(static_cast<std::size_t>(size_));
  }
  const std::shared_ptr<Round> round = entry;
  round->parts[static_cast<std::size_t>(rank)].emplace(mine.begin(), mine.end());
  if (++round->arrived == size_) {
    rounds_.erase(number);  // those who wait hold it
    changed_.notify_all();
  }
  return round;
}

void Board::gather(std::uint64_t number, int rank, std::span<const std::byte> mine,
                   std::span<std::byte> all, std::string_view what, const Deadline& deadline,
                   const std::function<void()>& check) {
  std::unique_lock lock(mutex_);
  const std::shared_ptr<Round> round = arrive(number, rank, mine);
  while (round->arrived < size_) {
    if (deadline.expired()) {
      round->given_up =
          timeout_text(rank, size_, what, deadline.elapsed_s(), missing_ranks(round->parts));
      throw Timeout(*round->given_up);
    }
    lock.unlock();
    check();
    lock.lock();
    if (round->arrived < size_) changed_.wait_for(lock, kSlice);
  }
  if (round->given_up) {
    throw CommError(fmt::format("rank {} of {}: came too late to '{}': {}", rank, size_, what,
                                *round->given_up));
  }
  std::byte* out = all.data();
  for (std::size_t i = 0; i < round->parts.size(); ++i) {
    const Bytes& part = *round->parts[i];
    if (part.size() != mine.size()) {
      throw CommError(fmt::format("'{}': rank {} brings {} bytes, rank {} brings {}", what, rank,
                                  mine.size(), i, part.size()));
    }
    out = std::copy(part.begin(), part.end(), out);
  }
}

std::optional<std::string> Board::failure_seen_by(int rank) const {
  const int failed = first_failed_.load(std::memory_order_acquire);
  if (failed < 0) return std::nullopt;
  const std::scoped_lock lock(mutex_);
  return peer_failure_text(rank, size_, failed, *reports_[static_cast<std::size_t>(failed)]);
}

std::vector<std::optional<std::string>> Board::report(int rank, std::string_view reason,
                                                      const Deadline& grace) {
  std::unique_lock lock(mutex_);
  auto& mine = reports_[static_cast<std::size_t>(rank)];
  if (!mine) {
    mine.emplace(reason);
    ++reported_;
    int none = -1;
    first_failed_.compare_exchange_strong(none, rank);
    changed_.notify_all();
  }
  while (reported_ < size_ && !grace.expired()) changed_.wait_for(lock, kSlice);
  return reports_;
}

}  // namespace annulus::comm::local
