#pragma once

#include "attention/kernels/dispatch.h"
#include "tests/gpu/device_kernel.h"

#include <cstdint>
#include <string>
#include <vector>

// What kernels are timed on: 16 heads, about 16k tokens a launch, whole sequences.
namespace annulus::testing {

struct TimedShape {
  DType dtype;
  std::int64_t dim;
  bool causal;
  std::int64_t seq;
  std::int64_t dim_v = 0;  ///< 0: dim
  std::int64_t values() const { return dim_v == 0 ? dim : dim_v; }
};
std::string name_of(const TimedShape& shape);  ///< as "bf16 128 causal 16384", "bf16 192:128 ..."

/// Geometry of whole sequences with the tiles, as the kernel wants them in this pass, that a causal
/// or full mask leaves; keys in that many segments of one length.
struct TimedSequences {
  TimedSequences(const TimedShape& shape, const attn::Kernel& kernel, bool backward = false,
                 int segments = 1);
  TimedSequences(const TimedSequences&) = delete;
  TimedSequences& operator=(const TimedSequences&) = delete;

  std::vector<attn::QuerySegment> queries;
  std::vector<attn::KeySegment> keys;
  std::vector<attn::Tile> tiles;
  std::vector<RowIntervals> intervals;
  attn::AttendGeometry geometry;
  double pairs = 0.0;  ///< that are visible, of all heads and batches
};

/// Normal values, for what a GPU can sustain depends on them; a block of them again and again.
DeviceBytes random_elements(DType dtype, std::int64_t count, unsigned seed);

double median(std::vector<float> values);

}  // namespace annulus::testing
