#include "attention/execute/row_ops.h"

#include "attention/kernels/state.h"
#include "runtime/base/dtype.h"

#include <cstring>

namespace annulus::attn {
namespace {

/// Calls fn(byte offset of the row in each block...) for each (batch, token, head) of `blocks`,
/// which have the same shape.
template <typename Fn, typename... Blocks>
void for_rows(const Memory& memory, Fn fn, const Block& first, const Blocks&... blocks) {
  const auto row = [&](const Block& b, std::int64_t n, std::int64_t t, std::int32_t h) {
    const SlotMemory& m = memory.slot(b.slot);
    const std::int64_t elements =
        n * m.batch_stride + t * b.token_step * m.token_stride + h * m.head_stride;
    return memory.at(b) + elements * size_of(m.dtype);
  };
  for (std::int64_t n = 0; n < memory.batch(); ++n) {
    for (std::int64_t t = 0; t < first.tokens; ++t) {
      for (std::int32_t h = 0; h < first.heads; ++h) {
        fn(row(first, n, t, h), row(blocks, n, t, h)...);
      }
    }
  }
}

float* floats(std::byte* row) { return reinterpret_cast<float*>(row); }

void store_row(const float* from, std::byte* to, DType dtype, std::int64_t count) {
  if (dtype == DType::f32) {
    std::memmove(to, from, static_cast<std::size_t>(count) * sizeof(float));
    return;
  }
  for (std::int64_t d = 0; d < count; ++d) store_f32(to, dtype, d, from[d]);
}

void zero(const Block& target, const Memory& memory) {
  const auto bytes =
      static_cast<std::size_t>(target.dims * size_of(memory.slot(target.slot).dtype));
  for_rows(
      memory, [&](std::byte* to) { std::memset(to, 0, bytes); }, target);
}

void convert(const Prepare& p, const Memory& memory) {
  const DType dtype = memory.slot(p.target.slot).dtype;
  for_rows(
      memory,
      [&](std::byte* to, std::byte* from) { store_row(floats(from), to, dtype, p.target.dims); },
      p.target, p.source);
}

void row_sums(const Prepare& p, const Memory& memory) {
  const DType a_type = memory.slot(p.source.slot).dtype;
  const DType b_type = memory.slot(p.source2.slot).dtype;
  for_rows(
      memory,
      [&](std::byte* to, std::byte* a, std::byte* b) {
        double sum = 0.0;
        for (std::int64_t d = 0; d < p.source.dims; ++d) {
          sum += load_f64(a, a_type, d) * load_f64(b, b_type, d);
        }
        *floats(to) = static_cast<float>(sum);
      },
      p.target, p.source, p.source2);
}

}  // namespace

void run_prepare(const Prepare& p, const Memory& memory) {
  switch (p.kind) {
    case PrepareKind::copy:
      comm::copy_region(memory.region(p.source, false), memory.region(p.target, false));
      break;
    case PrepareKind::convert:
      convert(p, memory);
      break;
    case PrepareKind::zero:
      zero(p.target, memory);
      break;
    case PrepareKind::row_sums:
      row_sums(p, memory);
      break;
  }
}

void run_reduce(const Reduce& r, const Memory& memory) {
  for_rows(
      memory,
      [&](std::byte* to, std::byte* from) {
        float* sum = floats(to);
        const float* add = floats(from);
        for (std::int32_t d = 0; d < r.target.dims; ++d)
          sum[d] = r.assign ? add[d] : sum[d] + add[d];
      },
      r.target, r.source);
}

void run_merge(const Merge& m, const Memory& memory) {
  for_rows(
      memory,
      [&](std::byte* o, std::byte* lse, std::byte* other, std::byte* other_lse) {
        merge_row(floats(o), *floats(lse), floats(other), *floats(other_lse), m.state.dims);
      },
      m.state, m.lse, m.other, m.other_lse);
  if (m.out.slot < 0 || m.out.slot == m.state.slot) return;
  const DType dtype = memory.slot(m.out.slot).dtype;
  for_rows(
      memory,
      [&](std::byte* to, std::byte* from) { store_row(floats(from), to, dtype, m.out.dims); },
      m.out, m.state);
}

}  // namespace annulus::attn
