#include "tests/gpu/launch_times.h"

namespace annulus::testing {

TestStream::TestStream() {
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
}

TestStream::~TestStream() { cudaStreamDestroy(stream); }

LaunchTimes::LaunchTimes() {
  check_cuda(cudaEventCreate(&begin_), "cudaEventCreate");
  check_cuda(cudaEventCreate(&end_), "cudaEventCreate");
}

LaunchTimes::~LaunchTimes() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
}

void LaunchTimes::mark(cudaEvent_t event, cudaStream_t stream) {
  check_cuda(cudaEventRecord(event, stream), "cudaEventRecord");
}

void LaunchTimes::note() {
  float ms = 0.0F;
  check_cuda(cudaEventElapsedTime(&ms, begin_, end_), "cudaEventElapsedTime");
  ms_.push_back(ms);
}

}  // namespace annulus::testing
