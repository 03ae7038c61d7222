#pragma once

#include <annulus/export.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus {

/// The keys [begin, end) that a query row may see.
struct KeyInterval {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool operator==(const KeyInterval&) const = default;
};

/// Key intervals of query rows 0, 1, ...: any number a row, in one allocation.
class ANNULUS_API KeyLists {
 public:
  /// Appends a row. Throws InvalidArgument, with row and interval, unless its intervals ascend and
  /// are disjoint. Empty ones are left out, touching ones joined.
  void add_row(std::span<const KeyInterval> intervals);

  std::int64_t rows() const { return static_cast<std::int64_t>(ends_.size()); }
  /// Spans stand as long as the lists, and until the next row.
  std::span<const KeyInterval> row(std::int64_t row) const& {
    const auto at = static_cast<std::size_t>(row);
    const auto begin = static_cast<std::size_t>(row == 0 ? 0 : ends_[at - 1]);
    return std::span(intervals_).subspan(begin, static_cast<std::size_t>(ends_[at]) - begin);
  }
  /// Of all rows.
  std::span<const KeyInterval> intervals() const& { return intervals_; }
  std::span<const KeyInterval> row(std::int64_t row) const&& = delete;
  std::span<const KeyInterval> intervals() const&& = delete;

  bool operator==(const KeyLists&) const = default;

 private:
  std::vector<std::int64_t> ends_;  ///< of each row in intervals_
  std::vector<KeyInterval> intervals_;
};

}  // namespace annulus
