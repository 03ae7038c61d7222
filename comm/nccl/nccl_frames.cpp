#include "comm/backoff.h"
#include "comm/communicator.h"
#include "comm/frames/frame_communicator.h"
#include "comm/nccl/library.h"
#include "comm/nccl/within.h"
#include "comm/wait_text.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <future>
#include <thread>

namespace annulus::comm::nccl {
namespace {

using frames::kFrameBytes;

struct PinnedTraits {
  using Type = std::byte*;
  static Type null() { return nullptr; }
  static void close(Type data) noexcept { (void)cudaFreeHost(data); }
};
using Pinned = UniqueHandle<PinnedTraits>;

Pinned make_pinned(std::size_t bytes) {
  void* data = nullptr;
  check_cuda(cudaMallocHost(&data, bytes), "cudaMallocHost of frames");
  return Pinned(static_cast<std::byte*>(data));
}

/// Shared with threads that outlive a wait for them. All memory is taken here, once.
struct State {
  const Library& nccl = Library::get();
  int rank = 0;
  int size = 0;
  int device = 0;
  ncclComm_t comm = nullptr;  ///< a split of the caller's
  CudaStream stream;
  CudaEvent arrived;
  Pinned host;          ///< this rank's frame, then all
  DeviceBuffer memory;  ///< the same
  std::promise<void> aborted;
  std::future<void> abort_ended = aborted.get_future();

  std::size_t all_bytes() const { return kFrameBytes * static_cast<std::size_t>(size); }

  /// This rank's frame is in `host`; all are when `arrived` has passed.
  void enqueue() {
    const auto at = cudaMemcpyAsync(memory.data(), host.get(), kFrameBytes, cudaMemcpyHostToDevice,
                                    stream.get());
    check_cuda(at, "copy of a frame");
    check(nccl.all_gather(memory.data(), memory.data() + kFrameBytes, kFrameBytes, ncclInt8, comm,
                          stream.get()),
          "ncclAllGather", comm);
    check_cuda(cudaMemcpyAsync(host.get() + kFrameBytes, memory.data() + kFrameBytes, all_bytes(),
                               cudaMemcpyDeviceToHost, stream.get()),
               "copy of all frames");
    check_cuda(cudaEventRecord(arrived.get(), stream.get()), "cudaEventRecord");
  }

  /// Of a communicator that the caller made non-blocking: it answers "in progress" first.
  void settle(ncclResult_t code, ncclComm_t of, const Deadline& deadline, const char* what) const {
    while (code == ncclInProgress && !deadline.expired()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      check(nccl.async_error(of, &code), "ncclCommGetAsyncError", of);
    }
    check(code, what, of);
  }

  void set_up(ncclComm_t given, const Deadline& deadline) {
    check_cuda(cudaSetDevice(device), "cudaSetDevice");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    const ncclResult_t code = nccl.split(given, 0, rank, &comm, &config);
    settle(code, given, deadline, "ncclCommSplit");
    stream = make_urgent_stream();
    arrived = make_event();
    host = make_pinned(kFrameBytes + all_bytes());
    memory = DeviceBuffer(static_cast<std::int64_t>(kFrameBytes + all_bytes()));
    std::memset(host.get(), 0, kFrameBytes + all_bytes());
    // NCCL connects at its first message, on the host, where no deadline looks.
    enqueue();
    check_cuda(cudaStreamSynchronize(stream.get()), "the first frames through NCCL");
  }
};

class NcclFrames final : public frames::Frames {
 public:
  /// Collective.
  NcclFrames(ncclComm_t given, double timeout_s) : timeout_s_(timeout_s) {
    const Library& nccl = state_->nccl;
    check(nccl.count(given, &state_->size), "ncclCommCount", given);
    check(nccl.user_rank(given, &state_->rank), "ncclCommUserRank", given);
    check(nccl.device(given, &state_->device), "ncclCommCuDevice", given);
    try {
      within(timeout_s, "mesh set-up (ncclCommSplit)",
             [state = state_, given, timeout_s] { state->set_up(given, Deadline(timeout_s)); });
    } catch (const Timeout& late) {
      // No abort: set-up still runs in its thread, and goes with the process.
      throw Timeout(fmt::format("rank {} of {}: {}", rank(), size(), late.what()));
    }
  }
  ~NcclFrames() override {
    if (abandoned_) {
      (void)state_->abort_ended.wait_for(std::chrono::duration<double>(std::min(timeout_s_, 60.0)));
      return;
    }
    try {
      within(timeout_s_, "ncclCommDestroy", [state = state_] {
        check_cuda(cudaSetDevice(state->device), "cudaSetDevice");
        check(state->nccl.destroy(state->comm), "ncclCommDestroy");
      });
    } catch (...) {
      // All have parted: what is left goes with the process.
    }
  }

  int rank() const override { return state_->rank; }
  int size() const override { return state_->size; }
  int device() const { return state_->device; }

  void gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what,
              const Deadline& deadline, const std::function<void()>& check_caller) override {
    const DeviceScope scope(state_->device);
    std::memcpy(state_->host.get(), mine.data(), kFrameBytes);
    state_->enqueue();
    Backoff backoff;
    for (;; backoff.idle()) {
      const cudaError_t code = cudaEventQuery(state_->arrived.get());
      if (code == cudaSuccess) break;
      if (code != cudaErrorNotReady) check_cuda(code, "frames through NCCL");
      check_caller();
      ncclResult_t error = ncclSuccess;
      check(state_->nccl.async_error(state_->comm, &error), "ncclCommGetAsyncError", state_->comm);
      if (error != ncclInProgress) check(error, "frames through NCCL", state_->comm);
      if (!deadline.expired()) continue;
      // Nobody knows who is missing: frames of others are seen all at once.
      throw Timeout(timeout_text(rank(), size(), what, deadline.elapsed_s(), {}));
    }
    (void)cudaGetLastError();  // "not ready" is none of the caller's
    std::memcpy(all.data(), state_->host.get() + kFrameBytes, state_->all_bytes());
  }

  void abandon() noexcept override {
    if (abandoned_) return;
    abandoned_ = true;
    // In a thread of its own: NCCL waits for streams, which may wait for what the caller lets go.
    try {
      std::thread([state = state_] {
        (void)cudaSetDevice(state->device);
        (void)state->nccl.abort(state->comm);
        state->aborted.set_value();
      }).detach();
    } catch (...) {
      // No thread can be made: the stream hangs until the process ends.
    }
  }

 private:
  const double timeout_s_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
  bool abandoned_ = false;
};

}  // namespace

}  // namespace annulus::comm::nccl

namespace annulus::comm {

std::unique_ptr<Communicator> make_nccl_communicator(void* given, double timeout_s) {
  if (given == nullptr) throw InvalidArgument("a mesh from an ncclComm_t: it is null");
  auto frames = std::make_unique<nccl::NcclFrames>(static_cast<ncclComm_t>(given), timeout_s);
  const int device = frames->device();
  return std::make_unique<frames::FrameCommunicator>(std::move(frames), device, timeout_s);
}

}  // namespace annulus::comm
