#pragma once

#include "tests/gpu/device_kernel.h"
#include "tests/support/launch.h"

#include <cstdint>
#include <vector>

namespace annulus::testing {

/// Elements from one batch, token and head to the next.
struct Strides {
  std::int64_t batch, token, head;
};

/// How the operands of a run lie in memory.
enum class Placing {
  compact,     ///< [batch][token][head][dim]
  head_major,  ///< [batch][head][token][dim]
  far,         ///< tokens 2^24 elements apart
};

/// A [batch, token, head, dim] tensor in device memory.
class DeviceTensor {
 public:
  DeviceTensor(DType dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
               std::int64_t dim, Placing placing);

  attn::Output output() const;
  attn::Input input() const;
  /// Of compact values: those of tokens from `first` on. Returns when they are there.
  void set(const std::vector<double>& values, cudaStream_t stream, std::int64_t first = 0);
  std::vector<double> get() const;
  void poison(cudaStream_t stream) const;  ///< NaN everywhere

 private:
  void copy(std::byte* compact, bool to_device, std::int64_t first, cudaStream_t stream) const;

  DType dtype_;
  std::int64_t batch_, tokens_, heads_, dim_;
  Strides strides_;
  DeviceBytes bytes_;
};

/// One launch of a kernel, forward and backward, whose parts can be changed before they are run.
class DeviceRun {
 public:
  /// `rounded`: dk and dv are of the problem's dtype.
  DeviceRun(const attn::Kernel& kernel, const TestLaunch& launch, const OracleInputs& inputs,
            const OracleResult& truth, Placing placing = Placing::compact, bool rounded = false);
  ~DeviceRun();
  DeviceRun(const DeviceRun&) = delete;
  DeviceRun& operator=(const DeviceRun&) = delete;

  void forward_pass() { kernel_.forward(forward, context); }
  void backward_pass() { kernel_.backward(backward, context); }
  void poison_results() const;
  OracleResult results() const;
  /// Flag of segment i, which a run finds raised.
  void set_flag(std::size_t i, std::uint32_t value) const;
  std::uint32_t* flag(std::size_t i) const {
    return reinterpret_cast<std::uint32_t*>(flags_.data()) + i;
  }
  /// The same of query segment i.
  void set_row_flag(std::size_t i, std::uint32_t value) const { set_flag(key_flags_ + i, value); }
  std::uint32_t* row_flag(std::size_t i) const { return flag(key_flags_ + i); }
  const attn::Kernel& kernel() const { return kernel_; }
  bool finished() const;  ///< is the stream idle?
  /// False where the stream is not idle after ten seconds.
  bool wait() const;

  DeviceTensor q, k, v, dout, out, lse, delta, dq, dk, dv;
  attn::ForwardParams forward;
  attn::BackwardParams backward;
  attn::LaunchContext context;
  cudaStream_t stream = nullptr;  ///< of the launches
  cudaStream_t other = nullptr;

 private:
  const attn::Kernel& kernel_;
  OracleProblem problem_;
  std::size_t key_flags_;  ///< flags of query segments follow
  DeviceBytes flags_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_;
};

}  // namespace annulus::testing
