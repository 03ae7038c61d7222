#pragma once

#include "tests/gpu/device_kernel.h"

#include <cstdint>
#include <vector>

namespace annulus::testing {

/// One call of self-attention with as many key/value as query heads, in the tiles that a kernel's
/// forward wants.
struct Shape {
  DType dtype = DType::bf16;
  std::int64_t head_dim = 128;
  std::int64_t seq = 4096;
  std::int64_t heads = 16;
  bool causal = false;

  attn::KernelQuery query() const;
};

/// Its operands in device memory, as standard normal values, and launches of one CUDA kernel on the
/// default stream.
class DeviceAttention {
 public:
  DeviceAttention(const Shape& shape, const attn::Kernel& kernel);

  void forward() const;
  /// After a forward.
  void backward() const;

  /// What the kernel counted since the last call. Waits for the device.
  std::int64_t executed_flops() const;
  /// Pairs of the tiles listed, all heads.
  std::int64_t tile_pairs() const { return tile_pairs_; }
  /// The same with every tile whole: what tensor cores do, who pad.
  std::int64_t padded_pairs() const;
  /// Pairs that the mask allows, all heads.
  std::int64_t exact_pairs() const;

 private:
  attn::Input input(const DeviceBytes& memory) const;
  attn::Output output(const DeviceBytes& memory, DType dtype, std::int64_t dim) const;
  attn::LaunchContext context() const;
  attn::AttendGeometry host_geometry();

  Shape shape_;
  const attn::Kernel& kernel_;
  attn::TileLimits grid_;
  std::vector<attn::QuerySegment> queries_;
  std::vector<attn::KeySegment> keys_;
  std::vector<attn::Tile> tiles_;
  std::vector<RowIntervals> intervals_;
  std::int64_t tile_pairs_ = 0;
  attn::AttendGeometry host_;
  DeviceGeometry geometry_;
  DeviceBytes q_, k_, v_, dout_, out_, lse_, delta_, dq_, dk_, dv_, workspace_, flops_;
};

}  // namespace annulus::testing
