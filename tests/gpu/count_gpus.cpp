// Prints how many GPUs this process may use; none, and why, on standard error where there are none.
#include <cuda_runtime_api.h>

#include <cstdio>

int main() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) {
    std::fprintf(stderr, "no GPU: %s\n", cudaGetErrorString(status));
    count = 0;
  }
  std::printf("%d\n", count);
  return 0;
}
