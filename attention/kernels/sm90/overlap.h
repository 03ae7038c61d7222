#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

// Launches whose blocks may start before the kernel before them has ended, which they wait for by
// themselves (await_kernel_before).
namespace annulus::attn::sm90 {

class Overlapped {
 public:
  Overlapped(dim3 grid, dim3 block, std::size_t bytes, void* stream, bool early) {
    early_.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early_.val.programmaticStreamSerializationAllowed = 1;
    config_.gridDim = grid;
    config_.blockDim = block;
    config_.dynamicSmemBytes = bytes;
    config_.stream = static_cast<cudaStream_t>(stream);
    config_.attrs = &early_;
    config_.numAttrs = early ? 1U : 0U;
  }
  Overlapped(const Overlapped&) = delete;
  Overlapped& operator=(const Overlapped&) = delete;

  const cudaLaunchConfig_t* config() const { return &config_; }

 private:
  cudaLaunchAttribute early_{};
  cudaLaunchConfig_t config_{};
};

}  // namespace annulus::attn::sm90
