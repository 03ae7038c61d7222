// MoE kernels on a GPU: against the CPU (gtest), then their times.
//   moe_gpu              both; exit status 77 without a GPU
//   moe_gpu --time       times alone
//   moe_gpu --balance    times of losses, capacity and noise alone
//   moe_gpu --peers [N]  dispatch and combine between all GPUs, or N, checked and timed beside NCCL
//   moe_gpu --check      checks alone; gtest's options may follow (compute-sanitizer: this)
#include "tests/gpu/moe_times.h"

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  ::testing::InitGoogleTest(&argc, argv);
  const std::string mode = argc > 1 ? argv[1] : "";
  try {
    if (mode == "--peers") {
      annulus::testing::time_peers(argc > 2 ? std::max(1, std::atoi(argv[2])) : devices);
      return 0;
    }
    if (mode == "--balance") {
      annulus::testing::time_balance();
      return 0;
    }
    const int failed = mode == "--time" ? 0 : RUN_ALL_TESTS();
    if (mode != "--check") annulus::testing::time_moe();
    return failed;
  } catch (const std::exception& error) {
    std::fflush(stdout);
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
