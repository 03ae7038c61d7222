#pragma once

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// What decides how `ulysses` slices the heads of a rank: that of the largest share of heads, so
/// that all ranks find the same.
struct SliceCase {
  int members = 1;         ///< ranks that exchange
  std::int32_t heads = 0;  ///< query heads of a rank
  std::int32_t group = 1;  ///< query heads that read one key/value head
  std::int32_t unit = 1;   ///< slices begin at multiples of it
  std::int64_t batch = 1;
  std::int64_t rows = 0;  ///< of all members
  std::int64_t keys = 0;
  std::int64_t pairs = 0;         ///< unmasked ones of one head and batch element
  std::int64_t flops_a_pair = 0;  ///< of the pass
  double tflops = 0;              ///< at which the kernel runs
  std::int64_t row_in = 0;        ///< bytes of a row and head that come before the attend
  std::int64_t key_in = 0;
  std::int64_t row_out = 0;  ///< and of its results
  std::int64_t key_out = 0;
  bool gives_in_place = false;  ///< nothing is staged for others
  bool lands_in_place = false;  ///< what others sent is not copied out
};

/// Where slices end, the last one at `heads`: at most `count`, as even as can be.
std::vector<std::int32_t> even_slices(std::int32_t heads, std::int32_t unit, int count);

/// Microseconds of a pass with these slices, by the model in head_slices.cpp.
double sliced_us(const SliceCase& c, const std::vector<std::int32_t>& ends);

/// The slices, three at most, with which a pass takes the least time.
std::vector<std::int32_t> best_slices(const SliceCase& c);

}  // namespace annulus::attn
