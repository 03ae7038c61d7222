#include "tests/gpu/device_run.h"

#include "runtime/base/dtype.h"

#include <algorithm>
#include <chrono>
#include <thread>

namespace annulus::testing {

namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Strides strides_of(std::int64_t tokens, std::int64_t heads, std::int64_t dim, Placing placing) {
  switch (placing) {
    case Placing::compact:
      return {tokens * heads * dim, heads * dim, dim};
    case Placing::head_major:
      return {tokens * heads * dim, dim, tokens * dim};
    case Placing::far:
      return {tokens << 24, std::int64_t{1} << 24, dim};
  }
  return {};
}

TestLaunch with_flags(TestLaunch launch, const DeviceBytes& flags) {
  const auto* next = reinterpret_cast<const std::uint32_t*>(flags.data());
  for (attn::KeySegment& segment : launch.keys) segment.ready = next++;
  for (attn::QuerySegment& segment : launch.queries) segment.ready = next++;
  return launch;
}

/// delta of the truth, [batch, token, head].
std::vector<double> row_sums(const std::vector<double>& a, const std::vector<double>& b,
                             std::int64_t dim) {
  std::vector<double> sums(a.size() / at(dim), 0.0);
  for (std::size_t i = 0; i < a.size(); ++i) sums[i / at(dim)] += a[i] * b[i];
  return sums;
}

DeviceTensor like_queries(const OracleProblem& p, DType dtype, Placing placing) {
  return {dtype, p.batch, p.seq, p.heads, p.head_dim, placing};
}

DeviceTensor like_keys(const OracleProblem& p, DType dtype, Placing placing) {
  return {dtype, p.batch, p.seq_kv, p.heads_kv, p.head_dim, placing};
}

DeviceTensor like_values(const OracleProblem& p, DType dtype, Placing placing) {
  return {dtype, p.batch, p.seq_kv, p.heads_kv, p.head_dim_v, placing};
}

DeviceTensor like_output(const OracleProblem& p, DType dtype, Placing placing) {
  return {dtype, p.batch, p.seq, p.heads, p.head_dim_v, placing};
}

DeviceTensor row_numbers(const OracleProblem& p) {
  return {DType::f32, p.batch, p.seq, p.heads, 1, Placing::compact};
}

cudaStream_t make_stream() {
  cudaStream_t stream = nullptr;
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  return stream;
}

}  // namespace

DeviceTensor::DeviceTensor(DType dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                           std::int64_t dim, Placing placing)
    : dtype_(dtype),
      batch_(batch),
      tokens_(tokens),
      heads_(heads),
      dim_(dim),
      strides_(strides_of(tokens, heads, dim, placing)),
      bytes_(at(batch * strides_.batch * size_of(dtype))) {}

attn::Output DeviceTensor::output() const {
  return {bytes_.data(), dtype_, strides_.batch, strides_.token, strides_.head};
}

attn::Input DeviceTensor::input() const {
  return {bytes_.data(), dtype_, strides_.batch, strides_.token, strides_.head};
}

void DeviceTensor::copy(std::byte* compact, bool to_device, std::int64_t first,
                        cudaStream_t stream) const {
  const auto size = static_cast<std::int64_t>(size_of(dtype_));
  for (std::int64_t b = 0; b < batch_; ++b) {
    if (strides_.token == heads_ * dim_) {
      // Beside a kernel that holds the whole device only a plain copy is sure to start.
      const std::int64_t begin = (b * tokens_ + first) * heads_ * dim_ * size;
      const std::size_t bytes = at((tokens_ - first) * heads_ * dim_ * size);
      check_cuda(to_device ? cudaMemcpyAsync(bytes_.data() + begin, compact + begin, bytes,
                                             cudaMemcpyHostToDevice, stream)
                           : cudaMemcpyAsync(compact + begin, bytes_.data() + begin, bytes,
                                             cudaMemcpyDeviceToHost, stream),
                 "copy of a tensor");
      continue;
    }
    for (std::int64_t h = 0; h < heads_; ++h) {
      std::byte* host = compact + (((b * tokens_ + first) * heads_ + h) * dim_) * size;
      std::byte* device =
          bytes_.data() + (b * strides_.batch + first * strides_.token + h * strides_.head) * size;
      const std::size_t host_pitch = at(heads_ * dim_ * size);
      const std::size_t pitch = at(strides_.token * size);
      check_cuda(to_device ? cudaMemcpy2DAsync(device, pitch, host, host_pitch, at(dim_ * size),
                                               at(tokens_ - first), cudaMemcpyHostToDevice, stream)
                           : cudaMemcpy2DAsync(host, host_pitch, device, pitch, at(dim_ * size),
                                               at(tokens_ - first), cudaMemcpyDeviceToHost, stream),
                 "copy of a tensor");
    }
  }
  check_cuda(cudaStreamSynchronize(stream), "copy of a tensor");
}

void DeviceTensor::set(const std::vector<double>& values, cudaStream_t stream, std::int64_t first) {
  std::vector<std::byte> compact(values.size() * at(size_of(dtype_)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    store_f64(compact.data(), dtype_, static_cast<std::int64_t>(i), values[i]);
  }
  copy(compact.data(), true, first, stream);
}

std::vector<double> DeviceTensor::get() const {
  std::vector<double> values(at(batch_ * tokens_ * heads_ * dim_));
  std::vector<std::byte> compact(values.size() * at(size_of(dtype_)));
  copy(compact.data(), false, 0, nullptr);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = load_f64(compact.data(), dtype_, static_cast<std::int64_t>(i));
  }
  return values;
}

void DeviceTensor::poison(cudaStream_t stream) const {
  check_cuda(cudaMemsetAsync(bytes_.data(), 0xff, bytes_.size(), stream), "poison");
}

DeviceRun::DeviceRun(const attn::Kernel& kernel, const TestLaunch& launch,
                     const OracleInputs& inputs, const OracleResult& truth, Placing placing,
                     bool rounded)
    : q(like_queries(launch.problem, launch.problem.dtype, placing)),
      k(like_keys(launch.problem, launch.problem.dtype, placing)),
      v(like_values(launch.problem, launch.problem.dtype, placing)),
      dout(like_output(launch.problem, launch.problem.dtype, placing)),
      out(like_output(launch.problem, launch.problem.dtype, placing)),
      lse(row_numbers(launch.problem)),
      delta(row_numbers(launch.problem)),
      dq(like_queries(launch.problem, DType::f32, placing)),
      dk(like_keys(launch.problem, rounded ? launch.problem.dtype : DType::f32, placing)),
      dv(like_values(launch.problem, rounded ? launch.problem.dtype : DType::f32, placing)),
      stream(make_stream()),
      other(make_stream()),
      kernel_(kernel),
      problem_(launch.problem),
      key_flags_(launch.keys.size()),
      flags_(upload(std::span<const std::uint32_t>(
          std::vector<std::uint32_t>(launch.keys.size() + launch.queries.size(), 7U)))),
      geometry_(with_flags(launch, flags_).geometry(), kernel),
      workspace_(at(std::max<std::int64_t>(
          16, std::max(kernel.workspace_bytes(launch.geometry(), false, 1),
                       kernel.workspace_bytes(launch.geometry(), true, 1))))) {
  q.set(inputs.q, other);
  k.set(inputs.k, other);
  v.set(inputs.v, other);
  dout.set(inputs.dout, other);
  delta.set(row_sums(inputs.dout, truth.out, problem_.head_dim_v), other);
  forward = {.geometry = geometry_.geometry(),
             .q = q.input(),
             .k = k.input(),
             .v = v.input(),
             .out = out.output(),
             .lse = lse.output(),
             .state = {}};
  backward = {.geometry = geometry_.geometry(),
              .q = q.input(),
              .k = k.input(),
              .v = v.input(),
              .dout = dout.input(),
              .lse = lse.input(),
              .delta = delta.input(),
              .dq = dq.output(),
              .dk = dk.output(),
              .dv = dv.output(),
              .dq_assign = true,
              .dkv_assign = true};
  context.workspace = {workspace_.data(), workspace_.size()};
  context.stream = stream;
}

DeviceRun::~DeviceRun() {
  cudaStreamDestroy(stream);
  cudaStreamDestroy(other);
}

void DeviceRun::poison_results() const {
  for (const DeviceTensor* tensor : {&out, &lse, &dq, &dk, &dv}) tensor->poison(other);
  check_cuda(cudaStreamSynchronize(other), "poison");
}

OracleResult DeviceRun::results() const {
  check_cuda(cudaStreamSynchronize(stream), kernel_.name.data());
  OracleResult result{out.get(), {}, dq.get(), dk.get(), dv.get()};
  const std::vector<double> by_token = lse.get();
  result.lse.resize(by_token.size());
  for (std::int64_t b = 0; b < problem_.batch; ++b) {
    for (std::int64_t s = 0; s < problem_.seq; ++s) {
      for (std::int64_t h = 0; h < problem_.heads; ++h) {
        result.lse[at((b * problem_.heads + h) * problem_.seq + s)] =
            by_token[at((b * problem_.seq + s) * problem_.heads + h)];
      }
    }
  }
  return result;
}

void DeviceRun::set_flag(std::size_t i, std::uint32_t value) const {
  check_cuda(cudaMemcpyAsync(flags_.data() + 4 * i, &value, 4, cudaMemcpyHostToDevice, other),
             "flag");
  check_cuda(cudaStreamSynchronize(other), "flag");
}

bool DeviceRun::finished() const {
  const cudaError_t status = cudaStreamQuery(stream);
  if (status != cudaErrorNotReady) check_cuda(status, kernel_.name.data());
  return status == cudaSuccess;
}

bool DeviceRun::wait() const {
  for (int i = 0; i < 1000; ++i) {
    if (finished()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  return false;
}

}  // namespace annulus::testing
