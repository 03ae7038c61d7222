#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/tile_ops.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::attn::cpu {

namespace {

constexpr std::int64_t kMaxHeadDim = 512;  // beyond it the blocks of one thread leave L2

std::string refuses(const KernelQuery& query) {
  if (query.dtype == DType::f64) return "serves f32, bf16 and f16";
  const std::int64_t low = std::min(query.head_dim, query.head_dim_v);
  const std::int64_t high = std::max(query.head_dim, query.head_dim_v);
  if (low >= 1 && high <= kMaxHeadDim) return {};
  return fmt::format("serves head dims 1 to {}", kMaxHeadDim);
}

std::int64_t workspace_bytes(const AttendGeometry& geometry, bool backward, int threads) {
  const std::int64_t share =
      backward ? flash2_backward_bytes(geometry) : flash2_forward_bytes(geometry);
  return share * std::max(threads, 1);
}

constexpr Kernel kFlash2{.name = "flash2",
                         .backend = "cpu",
                         .tile_q = kRows,
                         .tile_k = kKeys,
                         .refuses = refuses,
                         .workspace_bytes = workspace_bytes,
                         .forward = flash2_forward,
                         .backward = flash2_backward};

}  // namespace

const Kernel& flash2_kernel() { return kFlash2; }

}  // namespace annulus::attn::cpu
