#pragma once

#include "runtime/base/kernel_entries.h"

#include <annulus/tensor.h>

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>

namespace annulus::attn {

/// Rows of one operand: [batch, tokens, heads] of them, `dims` elements each; strides in elements.
struct DeviceRows {
  void* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t batch_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};

struct RowShape {
  std::int64_t batch = 1;
  std::int64_t tokens = 0;
  std::int64_t heads = 0;
  std::int64_t dims = 0;
};

// A warp or less a row (elements: a thread). All return after the launch; its errors throw
// DeviceError.
/// `early`: what comes right before on the stream is a kernel, and the launch waits for nothing
/// else; where convert_may_overlap() says so.
void launch_convert(DeviceRows from, DeviceRows to, const RowShape& shape, cudaStream_t stream,
                    bool early = false);
bool convert_may_overlap();
void launch_zero(DeviceRows to, const RowShape& shape, cudaStream_t stream);
/// to = sum over dims of a * b.
void launch_row_sums(const DeviceRows& a, const DeviceRows& b, const DeviceRows& to,
                     const RowShape& shape, cudaStream_t stream);
/// to (+)= from, fp32.
void launch_reduce(DeviceRows from, DeviceRows to, bool assign, const RowShape& shape,
                   cudaStream_t stream);
/// (o, lse) <- merge with (other, other_lse); then out, if given, in its dtype.
void launch_merge(const DeviceRows& o, const DeviceRows& lse, const DeviceRows& other,
                  const DeviceRows& other_lse, const DeviceRows& out, const RowShape& shape,
                  cudaStream_t stream);

/// A call begins: its FLOP counter is 0, and so are the counters of what arrives and leaves; mapped
/// host memory counts one call more and names `pass`.
struct CallWords {
  std::int64_t* flops = nullptr;
  std::uint32_t* calls = nullptr;
  std::uint32_t* pass = nullptr;
  std::uint32_t* counters = nullptr;
  int counter_count = 0;
};
void launch_begin(const CallWords& words, std::uint32_t pass, cudaStream_t stream);
void launch_fill(std::uint32_t* words, int count, std::uint32_t value, cudaStream_t stream);

/// All that these and launch_row_works may launch. Which of them depends on where a caller's rows
/// lie, so a call may be the first to want one.
KernelEntries row_entries();
KernelEntries row_works_entries();  ///< a part of it

/// A copy or conversion.
struct RowWork {
  DeviceRows from, to;
  RowShape shape;
};
inline constexpr std::size_t kMostRowWorks = 8;
/// Several of them in one launch, kMostRowWorks at most. `begin`
/// and `pass`: as launch_begin's, which this launch then stands for; null: it does not. `early`:
/// as launch_convert's.
void launch_row_works(std::span<const RowWork> works, const CallWords* begin, std::uint32_t pass,
                      cudaStream_t stream, bool early);

}  // namespace annulus::attn
