#include "comm/device/planes.h"

#include <annulus/error.h>

#include <utility>

namespace annulus::comm {
namespace {

bool inner_is_dense(const Region& r) { return r.count[2] == 1 || r.stride[2] == r.run; }
bool rows_are_dense(const Region& r) { return r.count[1] == 1 || r.stride[1] == r.run; }

/// The inner axis as part of the run.
Region with_inner_joined(const Region& r) {
  Region joined = r;
  joined.run = r.run * r.count[2];
  joined.count[2] = 1;
  return joined;
}

/// The longer axis as the rows of a plane, the other one counts planes.
Region with_most_rows(const Region& r) {
  Region turned = r;
  if (r.count[2] > r.count[1]) {
    std::swap(turned.count[1], turned.count[2]);
    std::swap(turned.stride[1], turned.stride[2]);
  }
  return turned;
}

/// Row by row where the pitch is more than a copy takes.
void add(std::vector<Plane>& all, const Plane& plane) {
  if (plane.rows == 1 || (plane.to_pitch <= kMaxPitch && plane.from_pitch <= kMaxPitch)) {
    all.push_back(plane);
    return;
  }
  for (std::int64_t row = 0; row < plane.rows; ++row) {
    Plane one = plane;
    one.to += row * plane.to_pitch;
    one.from += row * plane.from_pitch;
    one.rows = 1;
    all.push_back(one);
  }
}

}  // namespace

std::vector<Plane> planes(const Region& source, const Region& target) {
  std::vector<Plane> all;
  if (source.bytes() == 0) return all;
  if (source.count != target.count || source.run != target.run) {
    throw InvalidArgument("peer transport: both ends of a transfer must have the same shape");
  }
  const bool dense = inner_is_dense(source) && inner_is_dense(target);
  const Region from = dense ? with_inner_joined(source) : with_most_rows(source);
  const Region to = dense ? with_inner_joined(target) : with_most_rows(target);
  const bool whole = rows_are_dense(from) && rows_are_dense(to);
  for (std::int64_t b = 0; b < from.count[0]; ++b) {
    for (std::int64_t h = 0; h < from.count[2]; ++h) {
      Plane plane;
      plane.to = to.base + b * to.stride[0] + h * to.stride[2];
      plane.from = from.base + b * from.stride[0] + h * from.stride[2];
      plane.to_pitch = to.stride[1];
      plane.from_pitch = from.stride[1];
      plane.run = whole ? from.run * from.count[1] : from.run;
      plane.rows = whole ? 1 : from.count[1];
      add(all, plane);
    }
  }
  return all;
}

}  // namespace annulus::comm
