#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <vector>

namespace annulus::testing {

/// A CUDA runtime for one stream without a GPU: device memory is the host's, what is enqueued runs
/// when the test says so, and what waits for a device is counted.
struct PoolRuntime {
  std::vector<std::function<void()>> enqueued;
  std::map<std::byte*, std::size_t> taken;  ///< by cudaMallocFromPoolAsync, in order of the host
  std::size_t most_taken = 0;               ///< bytes
  int pinned = 0;                           ///< cudaHostAlloc
  int waits = 0;  ///< cudaMalloc, cudaFree, cudaMemcpy and synchronizations
  bool capturing = false;
  std::map<void*, bool> events;  ///< over?

  /// All that was enqueued.
  void play();
};
PoolRuntime& pool_runtime();

}  // namespace annulus::testing
