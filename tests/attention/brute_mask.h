#pragma once

#include <annulus/problem.h>

#include <cstdint>
#include <vector>

namespace annulus::test {

/// May query i see key j? Straight from the words of problem.h, pair by pair; shares nothing with
/// the library but the description of the mask.
class BruteMask {
 public:
  explicit BruteMask(const Problem& resolved);

  bool sees(std::int64_t query, std::int64_t key) const {
    return allowed_[static_cast<std::size_t>(query * seq_kv_ + key)] != 0;
  }
  std::int64_t seq() const { return seq_; }
  std::int64_t seq_kv() const { return seq_kv_; }

  /// The runs of keys that a query sees: any number of them.
  std::vector<KeyInterval> runs(std::int64_t query) const;
  /// Unmasked pairs of all queries.
  std::int64_t pairs() const;
  /// The most runs that any query sees.
  std::size_t most_runs() const;

 private:
  std::int64_t seq_;
  std::int64_t seq_kv_;
  std::vector<char> allowed_;
};

}  // namespace annulus::test
