#include "comm/nccl/nccl_communicator.h"

#include "comm/nccl/library.h"
#include "comm/nccl/within.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <future>
#include <mutex>
#include <thread>

namespace annulus::comm::nccl {

struct NcclCommunicator::State {
  const Library& nccl = Library::get();
  std::timed_mutex mutex;  ///< held in calls of NCCL: an abort frees what they use
  ncclComm_t comm = nullptr;
  std::atomic<bool> aborting{false};
  std::promise<void> aborted;
  std::future<void> abort_ended = aborted.get_future();
};

namespace {

/// How long an abort lets a call of NCCL end by itself.
constexpr std::chrono::seconds kGrace{2};

ncclUniqueId agree_on_id(Communicator& control) {
  ncclUniqueId mine{};
  std::string error;
  try {
    if (control.rank() == 0) check(Library::get().get_unique_id(&mine), "ncclGetUniqueId");
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  require_success(control, "NCCL", error);
  std::vector<ncclUniqueId> all(static_cast<std::size_t>(control.size()));
  control.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
                     "NCCL's identifier");
  return all.front();
}

/// A given communicator has to be of this mesh.
void require_mesh(const Library& nccl, ncclComm_t comm, int size, int rank, int device) {
  int found[3] = {};
  check(nccl.count(comm, &found[0]), "ncclCommCount", comm);
  check(nccl.user_rank(comm, &found[1]), "ncclCommUserRank", comm);
  check(nccl.device(comm, &found[2]), "ncclCommCuDevice", comm);
  if (found[0] == size && found[1] == rank && found[2] == device) return;
  throw InvalidArgument(
      fmt::format("the ncclComm_t given has size {} rank {} on GPU {}, the mesh has size {} rank "
                  "{} on GPU {}",
                  found[0], found[1], found[2], size, rank, device));
}

void post(const Library& nccl, ncclComm_t comm, std::span<const Message> messages,
          cudaStream_t stream) {
  check(nccl.group_start(), "ncclGroupStart");
  ncclResult_t worst = ncclSuccess;
  for (const Message& m : messages) {
    const auto bytes = static_cast<std::size_t>(m.bytes);
    const ncclResult_t code = m.sends ? nccl.send(m.data, bytes, ncclInt8, m.peer, comm, stream)
                                      : nccl.receive(m.data, bytes, ncclInt8, m.peer, comm, stream);
    if (worst == ncclSuccess) worst = code;
  }
  const ncclResult_t end = nccl.group_end();  // a group that was begun must be ended
  check(worst, "ncclSend or ncclRecv", comm);
  check(end, "ncclGroupEnd", comm);
}

/// A byte to and from everybody that will be talked to.
void connect(const Library& nccl, ncclComm_t comm, const std::vector<int>& peers) {
  const DeviceBuffer bytes(static_cast<std::int64_t>(2 * peers.size()));
  std::vector<Message> messages;
  for (const int peer : peers) {
    for (const bool sends : {true, false}) {
      messages.push_back({sends, peer, bytes.data() + messages.size(), 1});
    }
  }
  const CudaStream stream = make_stream();
  if (!messages.empty()) post(nccl, comm, messages, stream.get());
  check_cuda(cudaStreamSynchronize(stream.get()), "the first messages through NCCL");
}

}  // namespace

bool built() { return true; }

std::string why_not() {
  try {
    (void)Library::get();
    return {};
  } catch (const std::exception& error) {
    return error.what();
  }
}

void pretend_host(const std::string& id) {
  // What the user has set stays.
  (void)setenv("NCCL_HOSTID", id.c_str(), 0);
  (void)setenv("NCCL_P2P_DISABLE", "1", 0);
  (void)setenv("NCCL_SHM_DISABLE", "1", 0);
}

NcclCommunicator::NcclCommunicator(Communicator& control, int device, void* given,
                                   const std::vector<int>& peers)
    : control_(control), device_(device), given_(given != nullptr), state_(new State) {
  const int size = control.size();
  const int rank = control.rank();
  const ncclUniqueId id = agree_on_id(control);
  std::string error;
  try {
    within(control.timeout_s(), "NCCL's set-up", [=, state = state_] {
      check_cuda(cudaSetDevice(device), "cudaSetDevice");
      if (given != nullptr) {
        require_mesh(state->nccl, static_cast<ncclComm_t>(given), size, rank, device);
        state->comm = static_cast<ncclComm_t>(given);
      } else {
        ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
        config.blocking = 1;
        check(state->nccl.init_rank(&state->comm, size, id, rank, &config), "ncclCommInitRank");
      }
      connect(state->nccl, state->comm, peers);
    });
  } catch (const std::exception& caught) {
    error = caught.what();
  }
  try {
    require_success(control, "NCCL", error);
  } catch (const InvalidArgument& failed) {
    // No abort: set-up may still run in its thread, and goes with the process.
    throw CommError(failed.what());
  }
}

NcclCommunicator::~NcclCommunicator() {
  try {
    if (!state_->aborting) {
      // Nobody leaves while others still set up or use it.
      control_.barrier("NCCL is dropped");
      if (given_) return;
      within(control_.timeout_s(), "ncclCommDestroy", [state = state_, device = device_] {
        check_cuda(cudaSetDevice(device), "cudaSetDevice");
        check(state->nccl.destroy(state->comm), "ncclCommDestroy");
      });
      return;
    }
  } catch (...) {
    abort();  // the mesh is dead
  }
  wait_for_abort();
}

void NcclCommunicator::exchange(std::span<const Message> messages, cudaStream_t stream) const {
  const std::scoped_lock lock(state_->mutex);
  if (state_->aborting) throw CommError("NCCL was aborted after a timeout: rebuild the mesh");
  post(state_->nccl, state_->comm, messages, stream);
}

void* NcclCommunicator::attach(std::span<std::byte> memory) const noexcept {
  const std::scoped_lock lock(state_->mutex);
  void* attached = nullptr;
  if (state_->aborting || memory.empty()) return nullptr;
  const ncclResult_t code =
      state_->nccl.attach(state_->comm, memory.data(), memory.size(), &attached);
  return code == ncclSuccess ? attached : nullptr;
}

void NcclCommunicator::detach(void* attached) const noexcept {
  const std::scoped_lock lock(state_->mutex);
  if (attached == nullptr || state_->aborting) return;
  (void)state_->nccl.detach(state_->comm, attached);
}

void* NcclCommunicator::handle() const { return state_->comm; }

void NcclCommunicator::abort() noexcept {
  if (state_->aborting.exchange(true)) return;
  // In a thread of its own: NCCL waits for streams, which may wait for what the caller lets go.
  try {
    std::thread([state = state_, device = device_] {
      {
        std::unique_lock lock(state->mutex, std::defer_lock);
        (void)lock.try_lock_for(kGrace);  // a call that hangs ends by the abort
        (void)cudaSetDevice(device);
        (void)state->nccl.abort(state->comm);
      }
      state->aborted.set_value();
    }).detach();
  } catch (...) {
    // No thread can be made: streams hang until the process ends.
  }
}

void NcclCommunicator::wait_for_abort() noexcept {
  (void)state_->abort_ended.wait_for(
      std::chrono::duration<double>(std::min(control_.timeout_s(), 60.0)));
}

}  // namespace annulus::comm::nccl
