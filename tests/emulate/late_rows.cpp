#include "tests/emulate/late_rows.h"

#include "attention/kernels/operand.h"
#include "runtime/base/dtype.h"

#include <cstring>
#include <utility>

namespace annulus::testing {

/// fn(address, bytes) of each row of the part, of all four operands.
template <typename Fn>
void LateRows::for_each_row(const RowPart& part, Fn&& fn) const {
  const attn::AttendGeometry& g = params_.geometry;
  const std::pair<const attn::Input&, std::int64_t> operands[] = {
      {params_.q, g.head_dim}, {params_.dout, g.head_dim_v}, {params_.lse, 1}, {params_.delta, 1}};
  for (const auto& [operand, dim] : operands) {
    for (std::int64_t b = 0; b < g.batch; ++b) {
      for (std::int64_t h = part.head; h < part.head + part.heads; ++h) {
        for (std::int64_t t = part.token; t < part.token + part.count; ++t) {
          // Tests own what they hide: operands are const for kernels alone.
          fn(const_cast<std::byte*>(attn::address_of(operand, b, t, h)),
             static_cast<std::size_t>(dim * size_of(operand.dtype)));
        }
      }
    }
  }
}

void LateRows::hide(const attn::BackwardParams& params) {
  params_ = params;
  for (std::size_t i = 0; i < parts_.size(); ++i) {
    kept_[i].clear();
    for_each_row(parts_[i], [&](std::byte* row, std::size_t bytes) {
      kept_[i].insert(kept_[i].end(), row, row + bytes);
    });
  }
  for (const RowPart& part : parts_) {
    for_each_row(part, [](std::byte* row, std::size_t bytes) { std::memset(row, 0xff, bytes); });
  }
}

void LateRows::arrive(std::size_t part) {
  const std::byte* from = kept_[part].data();
  for_each_row(parts_[part], [&](std::byte* row, std::size_t bytes) {
    std::memcpy(row, from, bytes);
    from += bytes;
  });
}

}  // namespace annulus::testing
