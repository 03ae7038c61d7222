#include "comm/region_copy.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace annulus::comm {
namespace {

/// Strides may be negative or cross, so a part's ends need not be its first and last bytes.
void widen(Span& span, std::byte* at, std::int64_t bytes) {
  if (span.low == nullptr) span = {at, at};
  span.low = std::min(span.low, at);
  span.high = std::max(span.high, at + bytes);
}

}  // namespace

void RegionCursor::advance(std::int64_t bytes) {
  offset_ += bytes;
  if (offset_ < region_.run) return;
  offset_ = 0;
  for (std::size_t axis = 3; axis-- > 0;) {
    run_ += region_.stride[axis];
    if (++index_[axis] < region_.count[axis]) return;
    run_ -= region_.stride[axis] * region_.count[axis];
    index_[axis] = 0;
  }
}

RegionCopy::RegionCopy(const Region& source, const Region& target)
    : left_(source.bytes()), reader_(source), writer_(target) {
  if (source.bytes() != target.bytes()) {
    throw InvalidArgument(fmt::format("cannot copy a region of {} bytes to one of {} bytes",
                                      source.bytes(), target.bytes()));
  }
}

RegionCopy::Part RegionCopy::advance(std::int64_t bytes) {
  Part part;
  for (std::int64_t todo = std::min(bytes, left_); todo > 0;) {
    const std::int64_t piece = std::min({reader_.left_in_run(), writer_.left_in_run(), todo});
    if (reader_.at() != writer_.at()) {
      std::memcpy(writer_.at(), reader_.at(), static_cast<std::size_t>(piece));
    }
    widen(part.source, reader_.at(), piece);
    widen(part.target, writer_.at(), piece);
    reader_.advance(piece);
    writer_.advance(piece);
    todo -= piece;
    left_ -= piece;
  }
  return part;
}

}  // namespace annulus::comm
