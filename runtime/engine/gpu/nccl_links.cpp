// Rates through NCCL between two GPUs of this process, each GPU with a thread that is a rank.
#include "comm/communicator.h"
#include "comm/nccl/nccl_communicator.h"
#include "runtime/engine/gpu/device.h"
#include "runtime/engine/gpu/probes.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <exception>
#include <span>
#include <thread>
#include <vector>

namespace annulus::engine {
namespace {

constexpr int kRepeats = 9;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

/// One end of the link; rank 0 receives. Seconds by size.
std::vector<double> seconds_of(comm::Communicator& control, int device,
                               const std::vector<std::int64_t>& sizes) {
  const OnDevice on(device);
  const auto largest = static_cast<std::size_t>(*std::max_element(sizes.begin(), sizes.end()));
  const DeviceMemory memory = make_memory(largest);
  auto* data = static_cast<std::byte*>(memory.get());
  const int other = 1 - control.rank();
  const comm::nccl::NcclCommunicator nccl(control, device, nullptr, {other});
  void* attached = nccl.attach({data, largest});
  const Stream stream = make_stream();
  const Event begin = make_event();
  const Event end = make_event();
  std::vector<double> seconds;
  for (const std::int64_t bytes : sizes) {
    const comm::nccl::Message message{control.rank() == 1, other, data, bytes};
    std::vector<double> times;
    for (int i = 0; i <= kRepeats; ++i) {
      control.barrier("a message through NCCL");
      check_cuda(cudaEventRecord(begin.get(), stream.get()), "cudaEventRecord");
      nccl.exchange(std::span(&message, 1), stream.get());
      check_cuda(cudaEventRecord(end.get(), stream.get()), "cudaEventRecord");
      await_event(end, control.timeout_s(), "a message through NCCL");
      float ms = 0;
      check_cuda(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
      if (i > 0) times.push_back(static_cast<double>(ms) * 1e-3);
    }
    seconds.push_back(median(times));
  }
  nccl.detach(attached);
  return seconds;
}

}  // namespace

void measure_nccl(GpuLink& link, double timeout_s) {
  std::vector<std::int64_t> sizes;
  for (const LinkRate& rate : link.rates) sizes.push_back(rate.bytes);
  const auto ranks = comm::make_local_communicators(2, timeout_s);
  std::array<std::vector<double>, 2> seconds;
  std::array<std::exception_ptr, 2> errors;
  const auto run = [&](std::size_t rank) {
    try {
      seconds[rank] = seconds_of(*ranks[rank], rank == 0 ? link.to : link.from, sizes);
    } catch (...) {
      errors[rank] = std::current_exception();
      ranks[rank]->report_failure("NCCL failed");
    }
  };
  {
    const std::jthread sender([&] { run(1); });
    run(0);
  }
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    link.rates[i].nccl_gb_s = static_cast<double>(sizes[i]) * 1e-9 / seconds[0][i];
  }
}

}  // namespace annulus::engine
