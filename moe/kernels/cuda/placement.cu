// Placement: three kernels.
#include "moe/kernels/cuda/device/placement.cuh"
#include "moe/kernels/cuda/limits.h"

#include <cuda_runtime.h>

namespace annulus::moe::cuda {

namespace {

constexpr int kScanWarps = 8;

__global__ void __launch_bounds__(kPlaceThreads)
    count_kernel(const __grid_constant__ PlaceParams p) {
  __shared__ std::int32_t shared[kMostColumns];
  count_block(p, shared, static_cast<int>(blockIdx.x));
}

__global__ void __launch_bounds__(kScanWarps* kWarp)
    scan_kernel(const __grid_constant__ PlaceParams p) {
  const int column = static_cast<int>(blockIdx.x) * kScanWarps + warp_id();
  if (column < columns_of(p)) scan_column(p, column);
}

__global__ void __launch_bounds__(kPlaceThreads)
    place_kernel(const __grid_constant__ PlaceParams p) {
  __shared__ PlaceShared shared;
  place_block(p, shared, static_cast<int>(blockIdx.x));
}

}  // namespace

KernelEntries placement_entries() { return entries_of(&count_kernel, &scan_kernel, &place_kernel); }

void count_pairs(const PlaceParams& p, void* stream) {
  check(p);
  auto* on = static_cast<cudaStream_t>(stream);
  if (p.tokens > 0) {
    count_kernel<<<static_cast<unsigned>(p.blocks()), kPlaceThreads, 0, on>>>(p);
    check_launch("count_pairs");
  }
  const auto blocks = static_cast<unsigned>((p.columns() + kScanWarps - 1) / kScanWarps);
  scan_kernel<<<blocks, kScanWarps * kWarp, 0, on>>>(p);
  check_launch("scan of counts");
}

void place_pairs(const PlaceParams& p, void* stream) {
  check(p);
  const int blocks = p.tokens > 0 ? p.blocks() : 1;  // rows of others, where there are no tokens
  place_kernel<<<static_cast<unsigned>(blocks), kPlaceThreads, 0,
                 static_cast<cudaStream_t>(stream)>>>(p);
  check_launch("place_pairs");
}

}  // namespace annulus::moe::cuda
