#include "attention/plan/gather_slices.h"

#include <algorithm>

namespace annulus::attn {
namespace {

/// Rows that meet a key in the time in which it arrives: 600 TFLOP/s of a kernel over 370 GB/s of a
/// copy engine, both 2 * (head_dim + head_dim_v) a key. Only a wish: nothing is wrong elsewhere.
constexpr std::int64_t kRowsAsItArrives = 1600;

}  // namespace

std::vector<HeadRange> equal_slices(std::int32_t heads, std::int32_t count) {
  std::vector<HeadRange> slices;
  for (std::int32_t i = 0; i < count; ++i) {
    const std::int32_t begin = heads * i / count;
    slices.push_back({begin, heads * (i + 1) / count - begin});
  }
  return slices;
}

std::vector<HeadRange> growing_slices(std::int32_t heads, std::int32_t first, std::int64_t rows) {
  std::vector<HeadRange> slices;
  const std::int64_t ahead = std::max<std::int64_t>(0, rows - kRowsAsItArrives);
  for (std::int32_t done = 0; done < heads || slices.empty();) {
    constexpr std::int64_t kUnit = 4 * kRowsAsItArrives;
    const std::int64_t hidden = (3 * done * ahead + kUnit / 2) / kUnit;
    const std::int64_t next = std::max<std::int64_t>(first, hidden);
    slices.push_back({done, static_cast<std::int32_t>(std::min<std::int64_t>(next, heads - done))});
    done = slices.back().end();
  }
  return slices;
}

}  // namespace annulus::attn
