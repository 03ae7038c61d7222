#pragma once

#include <cuda_runtime_api.h>

namespace annulus::attn {

/// A launch whose blocks may come before the kernel before it has ended, which they await.
class Early {
 public:
  Early(unsigned blocks, int threads, cudaStream_t stream, bool early) {
    overlap_.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    overlap_.val.programmaticStreamSerializationAllowed = 1;
    config_.gridDim = blocks;
    config_.blockDim = static_cast<unsigned>(threads);
    config_.stream = stream;
    config_.attrs = &overlap_;
    config_.numAttrs = early ? 1U : 0U;
  }
  Early(const Early&) = delete;
  Early& operator=(const Early&) = delete;

  const cudaLaunchConfig_t* config() const { return &config_; }

 private:
  cudaLaunchAttribute overlap_{};
  cudaLaunchConfig_t config_{};
};

}  // namespace annulus::attn
