#include <annulus/error.h>
#include <annulus/key_lists.h>

#include <fmt/format.h>

namespace annulus {

void KeyLists::add_row(std::span<const KeyInterval> intervals) {
  std::int64_t last = 0;
  for (const KeyInterval& k : intervals) {
    if (k.begin < k.end && k.begin < last) {
      throw InvalidArgument(
          fmt::format("mask row {}: intervals must ascend from key {}, got [{}, {})", rows(), last,
                      k.begin, k.end));
    }
    last = k.begin < k.end ? k.end : last;
  }
  const std::size_t first = intervals_.size();
  for (const KeyInterval& k : intervals) {
    if (k.begin >= k.end) continue;
    if (intervals_.size() > first && intervals_.back().end == k.begin) {
      intervals_.back().end = k.end;
    } else {
      intervals_.push_back(k);
    }
  }
  ends_.push_back(static_cast<std::int64_t>(intervals_.size()));
}

}  // namespace annulus
