#include "comm/transport.h"

#include "comm/backoff.h"
#include "comm/region_copy.h"

namespace annulus::comm {

void Transport::rest(Backoff& backoff) { backoff.idle(); }

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
  RegionCopy(source, target).advance(source.bytes());
}

}  // namespace annulus::comm
