#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/support.h"
#include "attention/kernels/cpu/tile_ops.h"

namespace annulus::attn::cpu {

namespace {

std::int64_t workspace_bytes(const AttendGeometry& geometry, bool backward, int threads) {
  const std::int64_t share =
      backward ? flash2_backward_bytes(geometry) : flash2_forward_bytes(geometry);
  return Workspace::bytes(0, share, threads);
}

std::int64_t materialized_bytes(const AttendGeometry& /*geometry*/, bool /*backward*/) { return 0; }

constexpr Kernel kFlash2{.name = "flash2",
                         .backend = "cpu",
                         .tile_q = kRows,
                         .tile_k = kKeys,
                         .refuses = refuses,
                         .workspace_bytes = workspace_bytes,
                         .materialized_bytes = materialized_bytes,
                         .forward = flash2_forward,
                         .backward = flash2_backward};

}  // namespace

const Kernel& flash2_kernel() { return kFlash2; }

}  // namespace annulus::attn::cpu
