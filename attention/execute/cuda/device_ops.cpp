#include "attention/execute/cuda/device_ops.h"

#include "attention/execute/cuda/row_kernels.h"
#include "attention/execute/joined_prepares.h"

#include <array>
#include <cstddef>

namespace annulus::attn {
namespace {

DeviceRows rows_of(const Memory& memory, const Block& b) {
  if (b.slot < 0) return {};
  const SlotMemory& m = memory.slot(b.slot);
  return {memory.at(b), m.dtype, m.batch_stride, m.token_stride * b.token_step, m.head_stride};
}

RowShape shape_of(const Memory& memory, const Block& b) {
  return {memory.batch(), b.tokens, b.heads, b.dims};
}

}  // namespace

void enqueue_prepare(const Prepare& p, const Memory& memory, cudaStream_t stream, bool early) {
  const RowShape shape = shape_of(memory, p.target);
  switch (p.kind) {
    case PrepareKind::copy:
    case PrepareKind::convert:
      launch_convert(rows_of(memory, p.source), rows_of(memory, p.target), shape, stream, early);
      break;
    case PrepareKind::zero:
      launch_zero(rows_of(memory, p.target), shape, stream);
      break;
    case PrepareKind::row_sums:
      launch_row_sums(rows_of(memory, p.source), rows_of(memory, p.source2),
                      rows_of(memory, p.target), shape_of(memory, p.source), stream);
      break;
  }
}

void enqueue_prepares(std::span<const Prepare* const> prepares, const Memory& memory,
                      const CallWords* begin, std::uint32_t pass, cudaStream_t stream, bool early) {
  static_assert(kMostRowWorks == kMostJoined);
  std::array<RowWork, kMostRowWorks> works;
  for (std::size_t i = 0; i < prepares.size(); ++i) {
    const Prepare& p = *prepares[i];
    works[i] = {rows_of(memory, p.source), rows_of(memory, p.target), shape_of(memory, p.target)};
  }
  launch_row_works(std::span(works).first(prepares.size()), begin, pass, stream, early);
}

void enqueue_reduce(const Reduce& r, const Memory& memory, cudaStream_t stream) {
  launch_reduce(rows_of(memory, r.source), rows_of(memory, r.target), r.assign,
                shape_of(memory, r.target), stream);
}

void enqueue_merge(const Merge& m, const Memory& memory, cudaStream_t stream) {
  const bool rounds = m.out.slot >= 0 && m.out.slot != m.state.slot;
  launch_merge(rows_of(memory, m.state), rows_of(memory, m.lse), rows_of(memory, m.other),
               rows_of(memory, m.other_lse), rounds ? rows_of(memory, m.out) : DeviceRows{},
               shape_of(memory, m.state), stream);
}

void enqueue_upload(std::byte* to, std::byte* from, std::int64_t bytes, cudaStream_t stream) {
  // Of fp32 nothing is converted, so that all bits stay.
  constexpr std::int64_t kDims = 64;
  const std::int64_t rows = bytes / (kDims * size_of(DType::f32));
  const auto rows_of = [&](std::byte* data) {
    return DeviceRows{data, DType::f32, rows * kDims, kDims, kDims};
  };
  launch_convert(rows_of(from), rows_of(to), {1, rows, 1, kDims}, stream);
}

}  // namespace annulus::attn
