#pragma once

#include "comm/transport.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace annulus::comm {

/// Walks the bytes of a region in order, a piece of a run at a time.
class RegionCursor {
 public:
  explicit RegionCursor(const Region& region) : region_(coalesce(region)), run_(region_.base) {}

  std::byte* at() const { return run_ + offset_; }
  std::int64_t left_in_run() const { return region_.run - offset_; }
  void advance(std::int64_t bytes);

 private:
  Region region_;
  std::byte* run_;
  std::array<std::int64_t, 3> index_{0, 0, 0};
  std::int64_t offset_ = 0;
};

/// Bytes [low, high) of memory.
struct Span {
  std::byte* low = nullptr;
  std::byte* high = nullptr;
};

/// A copy that may be done in parts, so that whoever computes beside it looks up in between.
class RegionCopy {
 public:
  /// Throws InvalidArgument unless both have the same number of bytes.
  RegionCopy(const Region& source, const Region& target);

  bool done() const { return left_ == 0; }

  /// What a part touched: the smallest ranges that hold it.
  struct Part {
    Span source;
    Span target;
  };
  /// Copies the next `bytes`, or what is left.
  Part advance(std::int64_t bytes);

 private:
  std::int64_t left_;
  RegionCursor reader_;
  RegionCursor writer_;
};

}  // namespace annulus::comm
