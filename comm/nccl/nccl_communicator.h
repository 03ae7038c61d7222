#pragma once

#include "comm/communicator.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace annulus::comm::nccl {

/// Its header was there when this was built; whether the library is, is seen at run time.
bool built();

/// Empty: NCCL can be used. Else why not: not built in, or libnccl.so.2 is not found at run time.
std::string why_not();

/// A test aid: this process counts as one of host `id` for NCCL, which then goes through its
/// network to others. Peer access and shared memory are switched off for the whole process, since
/// NCCL has no switch for a pair of ranks. NCCL reads this once in a process, at the first
/// communicator.
void pretend_host(const std::string& id);

/// Bytes from or to a rank, in one piece.
struct Message {
  bool sends = false;
  int peer = 0;
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
};

/// NCCL's communicator between the GPUs of a mesh, in rank order. One GPU for each rank.
class NcclCommunicator {
 public:
  /// Collective. `given`: the caller's ncclComm_t of the same ranks, or null: one is made. `peers`:
  /// with whom messages will be exchanged; connections are made now, since they block the host.
  /// Throws Timeout or CommError, on every rank alike.
  NcclCommunicator(Communicator& control, int device, void* given, const std::vector<int>& peers);
  NcclCommunicator(const NcclCommunicator&) = delete;
  NcclCommunicator& operator=(const NcclCommunicator&) = delete;
  /// Collective. A given communicator stays, unless it was aborted.
  ~NcclCommunicator();

  /// All messages as one launch. Those between two ranks meet in the order given. Throws CommError.
  void exchange(std::span<const Message> messages, cudaStream_t stream) const;

  /// Lets NCCL move this memory without copies of its own where it can. Null: it cannot.
  void* attach(std::span<std::byte> memory) const noexcept;
  void detach(void* attached) const noexcept;

  /// The ncclComm_t.
  void* handle() const;

  /// From any thread: ends all that was enqueued, here only, and returns at once. NCCL frees an
  /// aborted communicator, a given one too.
  void abort() noexcept;

 private:
  struct State;

  void wait_for_abort() noexcept;

  Communicator& control_;
  int device_;
  bool given_;
  std::shared_ptr<State> state_;  ///< shared with threads that outlive a wait for them
};

}  // namespace annulus::comm::nccl
