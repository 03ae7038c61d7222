// Which operations start while a kernel holds every SM. Decides in which order a plan may enqueue.
#include "runtime/engine/gpu/device.h"
#include "runtime/engine/gpu/kernels.h"
#include "runtime/engine/gpu/probes.h"

#include <annulus/error.h>

#include <functional>
#include <optional>
#include <string>

namespace annulus::engine {
namespace {

constexpr std::size_t kBytes = std::size_t{1} << 20;
constexpr double kPatience = 0.02;  // any of these takes well under a millisecond

struct Operation {
  std::string name;
  std::function<void(cudaStream_t)> enqueue;
  std::string untried;
};

class FullKernel {
 public:
  explicit FullKernel(double timeout_s)
      : timeout_s_(timeout_s), words_(static_cast<std::size_t>(full_grid()) + 1) {}

  /// Did `enqueue`'s work finish while the kernel was on every SM?
  bool lets_start(const std::function<void(cudaStream_t)>& enqueue) {
    words_.fill(0);
    const Release release{words_};
    launch_full(words_.data() + 1, words_.data(), timeout_s_, stream_.get());
    check_cuda(cudaEventRecord(done_.get(), stream_.get()), "cudaEventRecord");
    if (!await(Deadline(timeout_s_), [&] { return all_arrived(); })) {
      throw Timeout("the full kernel's blocks did not all start");
    }
    enqueue(other_.get());
    check_cuda(cudaEventRecord(operation_.get(), other_.get()), "cudaEventRecord");
    const bool started = await(Deadline(kPatience), [&] { return finished(operation_); });
    if (finished(done_)) throw Timeout("the full kernel ended before its time");
    words_.write(0, 1);
    await_event(done_, timeout_s_, "the full kernel");
    await_event(operation_, timeout_s_, "an operation beside the full kernel");
    return started;
  }

  /// Once without the kernel: what loads lazily would wait for it.
  void warm(const std::function<void(cudaStream_t)>& enqueue) {
    enqueue(other_.get());
    check_cuda(cudaEventRecord(operation_.get(), other_.get()), "cudaEventRecord");
    await_event(operation_, timeout_s_, "warming up");
  }

 private:
  /// The kernel ends however this does.
  struct Release {
    SharedWords& words;
    ~Release() { words.write(0, 1); }
  };

  bool all_arrived() const {
    for (std::size_t i = 1; i < words_.size(); ++i) {
      if (words_.read(i) == 0) return false;
    }
    return true;
  }

  double timeout_s_;
  SharedWords words_;
  Stream stream_ = make_stream();
  Stream other_ = make_stream();
  Event done_ = make_event();
  Event operation_ = make_event();
};

void copy(void* to, const void* from, cudaMemcpyKind kind, cudaStream_t stream) {
  check_cuda(cudaMemcpyAsync(to, from, kBytes, kind, stream), "cudaMemcpyAsync");
}

}  // namespace

std::vector<BesideFullKernel> try_beside_full_kernel(int peer, double timeout_s) {
  const OnDevice on(0);
  const DeviceMemory a = make_memory(kBytes);
  const DeviceMemory b = make_memory(kBytes);
  std::optional<SharedDeviceMemory> far;
  if (peer >= 0) far.emplace(peer, 0, 2 * kBytes);
  SharedWords host(kBytes / sizeof(std::uint32_t));
  const DriverFunctions& driver = driver_functions();
  const auto write_value = [&](cudaStream_t stream) {
    if (driver.write_value(stream, reinterpret_cast<CUdeviceptr>(a.get()), 1, 0) != CUDA_SUCCESS) {
      throw DeviceError("cuStreamWriteValue32 failed");
    }
  };
  const std::vector<Operation> operations{
      {"local copy", [&](auto s) { copy(b.get(), a.get(), cudaMemcpyDeviceToDevice, s); }, {}},
      {"memset",
       [&](auto s) { check_cuda(cudaMemsetAsync(a.get(), 0, kBytes, s), "cudaMemsetAsync"); },
       {}},
      {"small kernel", [&](auto s) { launch_small(static_cast<std::uint32_t*>(a.get()), s); }, {}},
      {"copy to host", [&](auto s) { copy(host.data(), a.get(), cudaMemcpyDeviceToHost, s); }, {}},
      {"copy from host",
       [&](auto s) { copy(a.get(), host.data(), cudaMemcpyHostToDevice, s); },
       {}},
      {"peer copy", [&](auto s) { copy(b.get(), far->data(), cudaMemcpyDeviceToDevice, s); },
       peer < 0 ? "one GPU" : ""},
      {"stream write-value", write_value,
       driver.write_value == nullptr ? "the driver has no cuStreamWriteValue32" : ""}};
  FullKernel kernel(timeout_s);
  std::vector<BesideFullKernel> results;
  for (const Operation& operation : operations) {
    BesideFullKernel result{
        .operation = operation.name, .starts = false, .untried = operation.untried};
    if (result.untried.empty()) {
      kernel.warm(operation.enqueue);
      result.starts = kernel.lets_start(operation.enqueue);
    }
    results.push_back(result);
  }
  return results;
}

}  // namespace annulus::engine
