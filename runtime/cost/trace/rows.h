#pragma once

#include <annulus/trace.h>

#include <compare>
#include <cstdint>
#include <map>
#include <vector>

namespace annulus::trace {

/// A row of a rank: what computes, or a link to a peer in one direction.
struct Row {
  bool link = false;
  int peer = 0;
  bool sends = false;
  auto operator<=>(const Row&) const = default;
};

/// An item as it is drawn, in nanoseconds of rank 0's clock.
struct Drawn {
  std::int32_t item = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t started = 0;  ///< of a transfer; it may have stood behind others on its link
};

/// The rows of one rank in a call, each sorted, and none of its items over another.
using Rows = std::map<Row, std::vector<Drawn>>;

/// By rank, of a gathered call.
std::vector<Rows> rows_of(const TracedCall& call, std::span<const ClockOffset> clocks);

}  // namespace annulus::trace
