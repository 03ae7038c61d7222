#pragma once

#include "moe/kernels/cuda/gemms.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <cublas_v2.h>

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace annulus::moe::cuda {

/// How products of one call run.
enum class BlasWay : std::uint8_t {
  best,     ///< lanes for gradients of weights, else one stream (docs/notes/10-moe-on-gpus.md)
  lanes,    ///< a call each, dealt over streams
  grouped,  ///< one call for all, where cuBLAS takes it; else lanes
  own,      ///< the kernel of moe/kernels/sm90 for what it takes, on Hopper; else best
};

/// cuBLAS for one stream at a time, of the current device. What it allocates it allocates when
/// made.
class Blas {
 public:
  /// `lanes` calls may run beside each other. Throws Unsupported where there is no cuBLAS.
  explicit Blas(int lanes = 4, BlasWay way = BlasWay::best);
  ~Blas();
  Blas(const Blas&) = delete;
  Blas& operator=(const Blas&) = delete;

  void set_way(BlasWay way) { way_ = way; }

  /// Enqueues on `stream`, and what else runs is awaited there.
  void run(std::span<const GemmWork> works, cudaStream_t stream);

 private:
  struct Lane;

  void set_stream(Lane& lane, cudaStream_t stream);
  /// False where the own kernel has it not for these, or not for this GPU.
  bool run_own(std::span<const GemmWork> works, cudaStream_t stream);
  void run_lanes(std::span<const GemmWork> works, cudaStream_t stream);
  /// False where cuBLAS has it not for these.
  bool run_grouped(std::span<const GemmWork> works, cudaStream_t stream);
  void run_work(Lane& lane, const GemmWork& work, cudaStream_t stream);

  std::vector<std::unique_ptr<Lane>> lanes_;  ///< the first runs on the caller's stream
  BlasWay way_;
  CudaEvent ready_;
  DeviceBuffer pointers_;
};

}  // namespace annulus::moe::cuda
