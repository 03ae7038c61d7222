// Copies between strided boxes and staging memory, so that NCCL sends and receives single pieces.

#include "comm/nccl/pack.h"

#include <annulus/error.h>

#include <algorithm>
#include <string>

namespace annulus::comm::nccl {
namespace {

constexpr int kThreads = 256;
/// Blocks of a launch: it is bound by memory, and attention wants the SMs.
constexpr std::int64_t kMostBlocks = 256;

template <typename T>
__device__ void copy_bytes(std::byte* to, const std::byte* from, std::int64_t bytes, int lane,
                           int lanes) {
  const auto* source = reinterpret_cast<const T*>(from);
  auto* target = reinterpret_cast<T*>(to);
  const std::int64_t n = bytes / static_cast<std::int64_t>(sizeof(T));
  for (std::int64_t i = lane; i < n; i += lanes) target[i] = source[i];
}

__device__ void copy_piece(std::byte* to, const std::byte* from, std::int64_t bytes,
                           const PackJob& job, int lane) {
  switch (job.width) {
    case 16:
      return copy_bytes<uint4>(to, from, bytes, lane, job.lanes);
    case 8:
      return copy_bytes<uint2>(to, from, bytes, lane, job.lanes);
    case 4:
      return copy_bytes<std::uint32_t>(to, from, bytes, lane, job.lanes);
    case 2:
      return copy_bytes<std::uint16_t>(to, from, bytes, lane, job.lanes);
    default:
      return copy_bytes<std::uint8_t>(to, from, bytes, lane, job.lanes);
  }
}

__global__ void __launch_bounds__(kThreads) pack_kernel(const PackJob* jobs, bool packs) {
  const PackJob job = jobs[blockIdx.y];
  const std::int64_t thread = std::int64_t{blockIdx.x} * kThreads + threadIdx.x;
  const std::int64_t step = std::int64_t{gridDim.x} * kThreads / job.lanes;
  const int lane = static_cast<int>(thread % job.lanes);
  const std::int64_t rows = job.count[0] * job.count[1] * job.count[2];
  const std::int64_t pieces = (job.run + kPiece - 1) / kPiece;
  for (std::int64_t i = thread / job.lanes; i < rows * pieces; i += step) {
    const std::int64_t row = i / pieces;
    const std::int64_t begin = i % pieces * kPiece;
    const std::int64_t bytes = job.run - begin < kPiece ? job.run - begin : kPiece;
    const std::int64_t i2 = row % job.count[2];
    const std::int64_t i1 = row / job.count[2] % job.count[1];
    const std::int64_t i0 = row / job.count[2] / job.count[1];
    std::byte* strided =
        job.strided + i0 * job.stride[0] + i1 * job.stride[1] + i2 * job.stride[2] + begin;
    std::byte* dense = job.dense + row * job.run + begin;
    copy_piece(packs ? dense : strided, packs ? strided : dense, bytes, job, lane);
  }
}

void check(cudaError_t code) {
  if (code == cudaSuccess) return;
  throw DeviceError(std::string("packing for NCCL: ") + cudaGetErrorString(code));
}

}  // namespace

void launch_pack(const PackLaunch& launch, cudaStream_t stream) {
  if (launch.count == 0) return;
  const std::int64_t wish = (launch.threads + kThreads - 1) / kThreads;
  const std::int64_t most = std::max<std::int64_t>(1, kMostBlocks / launch.count);
  const dim3 grid(static_cast<unsigned>(std::clamp<std::int64_t>(wish, 1, most)),
                  static_cast<unsigned>(launch.count));
  pack_kernel<<<grid, kThreads, 0, stream>>>(launch.jobs, launch.packs);
  check(cudaGetLastError());
}

KernelEntries pack_entries() { return entries_of(&pack_kernel); }

}  // namespace annulus::comm::nccl
