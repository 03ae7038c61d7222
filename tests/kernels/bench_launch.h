#pragma once

#include "attention/kernels/dispatch.h"

#include <cstddef>
#include <cstdint>
#include <vector>

// One launch of a local kernel on random values, to be timed.
namespace annulus::bench {

struct Setup {
  DType dtype = DType::f32;
  std::int64_t seq = 1024, heads = 8, group = 1, dim = 128;
  bool causal = true;
};

class BenchLaunch {
 public:
  BenchLaunch(const attn::Kernel& kernel, const Setup& setup, int threads);

  /// FLOPs that the kernel counted.
  std::int64_t forward();
  std::int64_t backward();

  /// Of one product (2 * pairs * dim) over the pairs that the mask leaves; forward has two of them,
  /// backward five.
  double exact_product_flops() const;

 private:
  attn::AttendGeometry geometry() const;
  attn::Input input(const std::vector<std::byte>& data, std::int64_t heads) const;
  attn::Output output(std::vector<float>& data, std::int64_t heads, std::int64_t dim) const;
  attn::LaunchContext context(bool backward, std::int64_t& flops);

  const attn::Kernel& kernel_;
  Setup setup_;
  int threads_;
  std::vector<attn::QuerySegment> queries_;
  std::vector<attn::KeySegment> keys_;
  std::vector<RowIntervals> intervals_;
  std::vector<attn::Tile> tiles_;
  std::vector<std::byte> q_, k_, v_, dout_, out_, workspace_;
  std::vector<float> lse_, delta_, dq_, dk_, dv_;
};

}  // namespace annulus::bench
