#pragma once

#include "comm/composite/choice.h"
#include "comm/device/device_link.h"
#include "comm/nccl/nccl_communicator.h"
#include "comm/nccl/staging.h"
#include "comm/peer/control_block.h"
#include "comm/peer/driver.h"
#include "comm/peer/symmetric_memory.h"
#include "comm/peer/watch.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_pool.h"
#include "runtime/base/word_pool.h"
#include "runtime/base/kernel_entries.h"
#include "runtime/engine/device_pass.h"
#include "runtime/engine/session.h"
#include "runtime/engine/stream_gate.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace annulus::engine {

/// A session's memory on a GPU: signals and counters, and the arena; both can be addressed by the
/// ranks beside it. And what its passes take and give back while others run: lists of tiles, names
/// of what was loaded.
class CudaMemory final : public DeviceMemory {
 public:
  /// `share_gpus`: some ranks do, as threads of one process.
  CudaMemory(comm::Communicator& communicator, const SessionOptions& options, int device,
             const ArenaBytes& arena_bytes, bool share_gpus);
  ~CudaMemory() override;

  int device() const override { return arena_.device(); }
  std::span<std::byte> arena() const override;
  std::string transport() const override { return transport_; }
  std::string transport_reason() const override { return reason_; }
  bool copies_beside_kernels() const override;
  InPlace in_place() const override { return in_place_; }
  bool share_gpus() const override { return share_gpus_; }
  void reserve() override;
  void beside_captures(const std::function<void()>& work) const override;

  int rank() const { return rank_; }
  /// Rank r's arena as this GPU addresses it; null where it cannot or another way was chosen.
  std::byte* arena_of(int rank) const { return near(rank) ? arena_.of(rank) : nullptr; }
  /// Between two ranks that address each other: the receiver moves the data; false: the sender.
  bool pulls(int sender, int receiver) const;
  /// What copies of all calls go on.
  cudaStream_t copies() const { return copies_.get(); }
  const comm::peer::ControlBlock& control() const;
  comm::peer::Watch& watch() { return *watch_; }

  std::unique_ptr<comm::DeviceLink> make_link(std::vector<comm::DeviceTransfer> transfers,
                                              std::uint32_t hash);

  /// What passes hold beside the arena, in order of copies().
  DevicePool& pool() { return *pool_; }
  WordPool& words() { return words_; }
  LoadedKernels& loaded() { return loaded_; }
  /// Of replays, which come one at a time.
  const StreamGate& gate() const { return *gate_; }
  /// Is this the first pass whose calls make what `kinds` says?
  bool is_new(std::string kinds) { return known_.insert(std::move(kinds)).second; }

  /// The end of the session's last call that was not captured, of whose pass it is, or of a pass
  /// that was retired; null before the first. All calls use one arena: whoever runs on a stream of
  /// its own waits for it.
  cudaEvent_t last_call() const { return last_call_; }
  void set_last_call(cudaEvent_t end) { last_call_ = end; }

  /// A number for each pass that is bound, so that a watch can say whose call it found.
  std::uint32_t next_pass();
  /// That pass goes. `end`: of its last call, which may still run: until then the watch knows it.
  void retire(std::uint32_t pass, CudaEvent end);

 private:
  struct Retired {
    std::uint32_t pass = 0;
    CudaEvent end;
  };
  void await_calls() const noexcept;
  void forget_retired();
  InPlace agree_in_place(comm::Communicator& communicator, const SessionOptions& options) const;
  void choose_transport(comm::Communicator& communicator, const SessionOptions& options);
  void open_nccl(comm::Communicator& communicator, const SessionOptions& options);
  /// Transfers with this rank go by `peer`.
  bool near(int rank) const { return transport_ != "nccl" && reach_.between(rank_, rank); }

  comm::peer::Driver driver_;
  int rank_;
  bool share_gpus_;
  comm::peer::SymmetricMemory control_;
  InPlace in_place_;  ///< known before the arena is, which is smaller then
  comm::peer::SymmetricMemory arena_;
  std::vector<comm::peer::ControlBlock> blocks_;
  comm::composite::Reach reach_;
  std::unique_ptr<comm::nccl::NcclCommunicator> nccl_;  ///< null: not needed
  void* attached_ = nullptr;                            ///< the arena, known to NCCL
  std::unique_ptr<comm::nccl::Staging> staging_;
  std::unique_ptr<comm::peer::Watch> watch_;
  std::string transport_;
  std::string reason_;
  std::string peer_copies_;  ///< SessionOptions::peer_copies
  CudaStream copies_;
  std::uint32_t passes_ = 0;
  cudaEvent_t last_call_ = nullptr;
  std::vector<Retired> retired_;
  LoadedKernels loaded_;
  std::set<std::string> known_;
  std::optional<StreamGate> gate_;
  WordPool words_;                  ///< in order of copies_, as are uploads
  std::optional<DevicePool> pool_;  ///< in order of copies_
};

}  // namespace annulus::engine
