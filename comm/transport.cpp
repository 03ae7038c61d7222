#include "comm/transport.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace annulus::comm {

namespace {

/// Walks the bytes of a region in order, a piece of a run at a time.
class Cursor {
 public:
  explicit Cursor(const Region& region) : region_(region), run_(region.base) {}

  std::byte* at() const { return run_ + offset_; }
  std::int64_t left_in_run() const { return region_.run - offset_; }

  void advance(std::int64_t bytes) {
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

 private:
  const Region& region_;
  std::byte* run_;
  std::array<std::int64_t, 3> index_{0, 0, 0};
  std::int64_t offset_ = 0;
};

}  // namespace

Region coalesce(Region region) {
  Region joined{.base = region.base, .run = region.run};
  if (region.bytes() <= 0) {
    joined.run = 0;
    return joined;
  }
  std::size_t first = 3;  // axes [first, 3) of `joined` are in use
  for (std::size_t axis = 3; axis-- > 0;) {
    const std::int64_t count = region.count[axis];
    const std::int64_t stride = region.stride[axis];
    if (count == 1) continue;
    if (first == 3 && stride == joined.run) {
      joined.run *= count;
    } else if (first < 3 && stride == joined.stride[first] * joined.count[first]) {
      joined.count[first] *= count;
    } else {
      --first;
      joined.count[first] = count;
      joined.stride[first] = stride;
    }
  }
  return joined;
}

void copy_region(const Region& source, const Region& target) {
  if (source.bytes() != target.bytes()) {
    throw InvalidArgument(fmt::format("cannot copy a region of {} bytes to one of {} bytes",
                                      source.bytes(), target.bytes()));
  }
  const Region from = coalesce(source);
  const Region to = coalesce(target);
  Cursor reader(from);
  Cursor writer(to);
  for (std::int64_t left = from.bytes(); left > 0;) {
    const std::int64_t piece = std::min(reader.left_in_run(), writer.left_in_run());
    if (reader.at() != writer.at()) {
      std::memcpy(writer.at(), reader.at(), static_cast<std::size_t>(piece));
    }
    reader.advance(piece);
    writer.advance(piece);
    left -= piece;
  }
}

}  // namespace annulus::comm
