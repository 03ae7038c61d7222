#include "runtime/engine/cuda_memory.h"

#include "comm/composite/composite_link.h"
#include "comm/device/queues.h"
#include "comm/nccl/nccl_link.h"
#include "comm/peer/peer_link.h"
#include "comm/peer/stream_ops.h"
#include "runtime/base/cuda_check.h"
#include "runtime/engine/device_pass.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cstdlib>
#include <utility>

namespace annulus::engine {
namespace {

using comm::peer::ControlBlock;

/// Ranks with the same text are beside each other.
std::string host_of(const comm::Communicator& communicator, const SessionOptions& options) {
  if (options.ranks_per_host <= 0) return std::string(communicator.host());
  return fmt::format("{}#{}", communicator.host(), communicator.rank() / options.ranks_per_host);
}

}  // namespace

std::vector<std::string> device_transports() {
  if (!comm::nccl::built()) return {"peer"};
  return {"peer", "nccl", "composite"};
}

CudaMemory::CudaMemory(comm::Communicator& communicator, const SessionOptions& options, int device,
                       std::int64_t arena_bytes, bool share_gpus)
    : driver_(comm::peer::Driver::load()),
      rank_(communicator.rank()),
      share_gpus_(share_gpus),
      control_(communicator, driver_, host_of(communicator, options), device,
               ControlBlock::bytes(communicator.size())),
      arena_(communicator, driver_, host_of(communicator, options), device, arena_bytes,
             options.arena),
      peer_copies_(options.peer_copies) {
  const DeviceScope scope(device);
  copies_ = make_urgent_stream();
  check_cuda(cudaMemset(control_.local(), 0, static_cast<std::size_t>(control_.bytes())),
             "cudaMemset of the signals");
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  if (share_gpus) comm::peer::load_copies(copies_.get());
  for (int r = 0; r < communicator.size(); ++r) {
    blocks_.emplace_back(control_.of(r), communicator.size());
  }
  choose_transport(communicator, options);
  // Where ranks are threads of one GPU, a look at its memory may stand behind another's wait.
  const int queues =
      share_gpus_ ? 1 : comm::hardware_queues(std::getenv("CUDA_DEVICE_MAX_CONNECTIONS"));
  watch_ =
      std::make_unique<comm::peer::Watch>(rank_, device, blocks_, communicator.timeout_s(), queues);
  if (nccl_) watch_->also([nccl = nccl_.get()] { nccl->abort(); });
}

CudaMemory::~CudaMemory() {
  watch_.reset();  // no abort from here on
  if (nccl_) nccl_->detach(attached_);
}

std::span<std::byte> CudaMemory::arena() const {
  return {arena_.local(), static_cast<std::size_t>(arena_.bytes())};
}

bool CudaMemory::pulls(int sender, int receiver) const {
  if (peer_copies_ != "auto") return peer_copies_ == "pull";
  return !arena_.is_ordered(sender, receiver);
}

bool CudaMemory::copies_beside_kernels() const {
  if (transport_ != "peer" || !arena_.own_gpus()) return false;
  for (int sender = 0; sender < arena_.world(); ++sender) {
    for (int receiver = 0; receiver < arena_.world(); ++receiver) {
      if (sender != receiver && !pulls(sender, receiver)) return false;
    }
  }
  return true;
}

const ControlBlock& CudaMemory::control() const { return blocks_[static_cast<std::size_t>(rank_)]; }

void CudaMemory::choose_transport(comm::Communicator& communicator, const SessionOptions& options) {
  std::vector<bool> reaches;
  std::string why_not;
  for (int r = 0; r < arena_.world(); ++r) {
    reaches.push_back(arena_.of(r) != nullptr && control_.of(r) != nullptr);
    if (reaches.back() || !why_not.empty()) continue;
    why_not = arena_.of(r) == nullptr ? arena_.why_not(r) : control_.why_not(r);
  }
  // A process that needs no NCCL does not open it.
  const bool may_need = options.transport != "peer" && arena_.world() > 1 &&
                        (options.transport == "nccl" || !why_not.empty());
  reach_ = comm::composite::Reach::gather(communicator, reaches, why_not,
                                          may_need ? comm::nccl::why_not() : std::string());
  const comm::composite::Choice choice = comm::composite::choose(options.transport, reach_);
  transport_ = choice.transport;
  reason_ = choice.reason;
  open_nccl(communicator, options);
}

void CudaMemory::open_nccl(comm::Communicator& communicator, const SessionOptions& options) {
  if (transport_ == "nccl" ? arena_.world() == 1 : reach_.all()) return;
  std::vector<int> peers;
  for (int r = 0; r < arena_.world(); ++r) {
    if (!near(r) && r != rank_) peers.push_back(r);
  }
  if (options.ranks_per_host > 0) comm::nccl::pretend_host(host_of(communicator, options));
  nccl_ = std::make_unique<comm::nccl::NcclCommunicator>(communicator, arena_.device(),
                                                         options.nccl, peers);
  attached_ = nccl_->attach(arena());
}

std::unique_ptr<comm::DeviceLink> CudaMemory::make_link(std::vector<comm::DeviceTransfer> transfers,
                                                        std::uint32_t hash) const {
  std::vector<bool> near_by;
  std::vector<bool> far;
  for (const comm::DeviceTransfer& t : transfers) {
    near_by.push_back(near(t.peer));
    far.push_back(!near_by.back());
  }
  std::unique_ptr<comm::DeviceLink> by_peer;
  std::unique_ptr<comm::DeviceLink> by_nccl;
  if (transport_ != "nccl") {
    by_peer = std::make_unique<comm::peer::PeerLink>(driver_, rank_, blocks_, transfers, hash,
                                                     arena_.own_gpus());
  }
  if (transport_ == "peer") return by_peer;
  by_nccl = std::make_unique<comm::nccl::NcclLink>(driver_, nccl_.get(), std::move(transfers), far);
  if (transport_ == "nccl") return by_nccl;
  return std::make_unique<comm::composite::CompositeLink>(std::move(by_peer), std::move(by_nccl),
                                                          std::move(near_by));
}

}  // namespace annulus::engine
