#include "attention/kernels/cpu/support.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::attn::cpu {

std::string refuses(const KernelQuery& query) {
  if (query.dtype == DType::f64) return "serves f32, bf16 and f16";
  const std::int64_t low = std::min(query.head_dim, query.head_dim_v);
  const std::int64_t high = std::max(query.head_dim, query.head_dim_v);
  if (low >= 1 && high <= kMaxHeadDim) return {};
  return fmt::format("serves head dims 1 to {}", kMaxHeadDim);
}

}  // namespace annulus::attn::cpu
