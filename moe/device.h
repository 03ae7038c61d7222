#pragma once

#include "moe/kernels/cuda/launch_balance.h"
#include "moe/kernels/dispatch.h"

#include <cstdint>
#include <memory>

namespace annulus::moe {

/// Where a DeviceLayer runs: a GPU, or in tests emulated blocks over host memory. Everything is
/// enqueued on context.stream.
struct Device {
  const Kernel* kernel = nullptr;
  LaunchContext context{};
  std::shared_ptr<void> library{};  ///< holds context.library

  void (*route)(cuda::RouteParams params, void* stream) = nullptr;
  void (*route_backward)(cuda::RouteBackwardParams params, void* stream) = nullptr;
  void (*count_losses)(cuda::LossParams params, void* stream) = nullptr;
  void (*add_losses)(cuda::LossParams params, void* stream) = nullptr;
  void (*drop_pairs)(const cuda::DropParams& params, void* stream) = nullptr;
  void (*jitter)(const cuda::JitterParams& params, void* stream) = nullptr;
  void (*update_bias)(const cuda::BiasParams& params, void* stream) = nullptr;
  void (*count_pairs)(const cuda::PlaceParams& params, void* stream) = nullptr;
  void (*place_pairs)(const cuda::PlaceParams& params, void* stream) = nullptr;
  void (*scatter)(const cuda::ScatterParams& params, int blocks, void* stream) = nullptr;
  void (*combine)(const cuda::CombineParams& params, int blocks, void* stream) = nullptr;
  void (*fetch)(const cuda::FetchParams& params, void* stream) = nullptr;
  void (*pull)(const cuda::PullParams& params, void* stream) = nullptr;
  void (*split)(const cuda::SplitParams& params, void* stream) = nullptr;

  std::shared_ptr<void> (*allocate)(std::int64_t bytes) = nullptr;
  /// Host memory from the device's: returns when it is there.
  void (*read)(void* host, const void* device, std::int64_t bytes, void* stream) = nullptr;
  /// Device memory from the host's, which may change when it returns.
  void (*write)(void* device, const void* host, std::int64_t bytes, void* stream) = nullptr;
  /// Until the device has done all that was enqueued. Throws DeviceError.
  void (*wait)(void* stream) = nullptr;
  /// A second stream, on which rows travel while context.stream computes; held by `library`.
  void* travel = nullptr;
  /// What `stream` is given from here on waits for what `other` was given until now.
  void (*follow)(void* stream, void* other) = nullptr;
  void (*clear)(void* device, std::int64_t bytes, void* stream) = nullptr;
};

/// The current GPU; `stream` is a cudaStream_t. Throws Unsupported where none is built, or where
/// there is no cuBLAS.
Device gpu_device(void* stream);

}  // namespace annulus::moe
