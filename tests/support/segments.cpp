// Keys of a problem in segments, for launches of tests.
#include "tests/support/launch.h"

#include <algorithm>

namespace annulus::testing {

std::vector<attn::KeySegment> segments_cut_at(std::int64_t keys, std::vector<std::int64_t> cuts) {
  std::vector<attn::KeySegment> segments;
  cuts.push_back(keys);
  std::int64_t begin = 0;
  for (const std::int64_t cut : cuts) {
    segments.push_back({begin, begin, 1, cut - begin});
    begin = cut;
  }
  return segments;
}

std::vector<attn::KeySegment> striped_segments(std::int64_t keys, std::int64_t stride) {
  std::vector<attn::KeySegment> segments;
  std::int64_t token = 0;
  for (std::int64_t first = 0; first < stride; ++first) {
    const std::int64_t count = (keys - first + stride - 1) / stride;
    segments.push_back({token, first, stride, count});
    token += count;
  }
  return segments;
}

std::vector<attn::KeySegment> one_segment(const OracleProblem& problem) {
  return {{0, 0, 1, problem.seq_kv}};
}

std::vector<attn::KeySegment> from_sources(std::vector<attn::KeySegment> segments,
                                           std::int32_t count) {
  std::int32_t source = 0;
  for (attn::KeySegment& segment : segments) segment.source = source++ % count;
  return segments;
}

}  // namespace annulus::testing
