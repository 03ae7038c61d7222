// A thread for each element of a step.
#include "tests/gpu/device_oracle_steps.h"

namespace annulus::testing {
namespace {

constexpr int kThreads = 128;
constexpr std::int64_t kBlocks = 1 << 20;

template <typename Real>
__global__ void step_kernel(const __grid_constant__ OracleSteps<Real> steps, OracleStep step) {
  const std::int64_t count = steps.count(step);
  const std::int64_t threads = static_cast<std::int64_t>(gridDim.x) * kThreads;
  for (std::int64_t n = static_cast<std::int64_t>(blockIdx.x) * kThreads + threadIdx.x; n < count;
       n += threads) {
    steps.run(step, n);
  }
}

template <typename Real>
cudaError_t run(const OracleSteps<Real>& steps, OracleStep step, std::int64_t count) {
  if (count == 0) return cudaSuccess;
  const std::int64_t blocks = (count + kThreads - 1) / kThreads;
  step_kernel<<<static_cast<unsigned>(blocks < kBlocks ? blocks : kBlocks), kThreads>>>(steps,
                                                                                        step);
  return cudaGetLastError();
}

}  // namespace

cudaError_t run_oracle_step(const OracleSteps<double>& steps, OracleStep step, std::int64_t count) {
  return run(steps, step, count);
}
cudaError_t run_oracle_step(const OracleSteps<float>& steps, OracleStep step, std::int64_t count) {
  return run(steps, step, count);
}

}  // namespace annulus::testing
