#include "runtime/engine/moe/nccl_carrier.h"

#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <chrono>
#include <thread>

namespace annulus::moe {
namespace {

std::vector<int> others_of(const Group& group) {
  std::vector<int> ranks;
  for (int r = 0; r < group.ranks; ++r) {
    if (r != group.me) ranks.push_back(group.world_rank(r));
  }
  return ranks;
}

}  // namespace

NcclCarrier::NcclCarrier(comm::Communicator& communicator, const Group& group, int device)
    : communicator_(communicator),
      group_(group),
      nccl_(communicator, device, nullptr, others_of(group)) {}

/// The n-th that goes to this rank is the n-th that comes from it.
void NcclCarrier::copy_own(std::span<const RowMessage> messages, cudaStream_t stream) {
  const auto next = [&](std::size_t from, bool sends) {
    while (from < messages.size() &&
           (messages[from].peer != group_.me || messages[from].sends != sends)) {
      ++from;
    }
    return from;
  };
  std::size_t out = next(0, true), in = next(0, false);
  while (out < messages.size() && in < messages.size()) {
    check_cuda(cudaMemcpyAsync(messages[in].data, messages[out].data,
                               static_cast<std::size_t>(messages[out].bytes),
                               cudaMemcpyDeviceToDevice, stream),
               "rows of the own rank");
    out = next(out + 1, true);
    in = next(in + 1, false);
  }
}

void NcclCarrier::exchange(const char* phase, std::span<const RowMessage> messages, void* stream) {
  auto* on = static_cast<cudaStream_t>(stream);
  others_.clear();
  for (const RowMessage& m : messages) {
    if (m.peer == group_.me) continue;
    others_.push_back({m.sends, group_.world_rank(m.peer), m.data, m.bytes});
  }
  if (!others_.empty()) nccl_.exchange(others_, on);
  copy_own(messages, on);
  wait(phase, on);
}

void NcclCarrier::wait(const char* phase, cudaStream_t stream) {
  const Deadline deadline(communicator_.timeout_s());
  for (;;) {
    const cudaError_t code = cudaStreamQuery(stream);
    if (code == cudaSuccess) break;
    if (code != cudaErrorNotReady) check_cuda(code, phase);
    if (deadline.expired()) {
      nccl_.abort();
      throw Timeout(fmt::format("rank {}: moe {}: rows by NCCL did not come within {} s",
                                communicator_.rank(), phase, deadline.limit_s()));
    }
    if (communicator_.aborted()) {
      nccl_.abort();
      throw CommError(fmt::format("rank {}: moe {}: the mesh was ended while rows were under way",
                                  communicator_.rank(), phase));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(5));
  }
  waited_s_ += deadline.elapsed_s();
}

}  // namespace annulus::moe
