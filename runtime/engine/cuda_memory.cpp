#include "runtime/engine/cuda_memory.h"

#include "attention/execute/cuda/device_ops.h"
#include "comm/composite/composite_link.h"
#include "comm/device/queues.h"
#include "comm/nccl/nccl_link.h"
#include "comm/peer/peer_link.h"
#include "comm/peer/stream_ops.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/relaxed_capture.h"
#include "runtime/engine/device_pass.h"

#include <annulus/device_memory.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <span>
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

int choose_device(const SessionOptions& options, int local_rank) {
  const int count = device_count();
  if (count == 0) throw Unsupported("back end cuda: no GPU was found; built: cpu, cuda");
  (void)comm::peer::Driver::load();
  if (options.device >= count || options.device < -1) {
    throw InvalidArgument(fmt::format("device {}: there are {} GPUs", options.device, count));
  }
  return options.device >= 0 ? options.device : local_rank % count;
}

std::unique_ptr<DeviceMemory> make_device_memory(comm::Communicator& communicator,
                                                 const SessionOptions& options, int device,
                                                 const ArenaBytes& arena_bytes) {
  comm::require_agreement(communicator, "peer_copies", options.peer_copies);
  const bool share_gpus = comm::require_queues(communicator, device);
  return std::make_unique<CudaMemory>(communicator, options, device, arena_bytes, share_gpus);
}

CudaMemory::CudaMemory(comm::Communicator& communicator, const SessionOptions& options, int device,
                       const ArenaBytes& arena_bytes, bool share_gpus)
    : driver_(comm::peer::Driver::load()),
      rank_(communicator.rank()),
      share_gpus_(share_gpus),
      control_(communicator, driver_, host_of(communicator, options), device,
               ControlBlock::bytes(communicator.size())),
      in_place_(agree_in_place(communicator, options)),
      arena_(communicator, driver_, host_of(communicator, options), device, arena_bytes(in_place_),
             options.arena),
      peer_copies_(options.peer_copies) {
  const DeviceScope scope(device);
  copies_ = make_urgent_stream();
  pool_.emplace(copies_.get(), communicator.timeout_s(), attn::enqueue_upload);
  gate_.emplace();
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
  await_calls();
  watch_.reset();  // no abort from here on
  if (nccl_) nccl_->detach(attached_);
}

/// Passes that went did not wait for their last calls. The watch ends these if nothing else does.
void CudaMemory::await_calls() const noexcept {
  try {
    const DeviceScope scope(device());
    (void)cudaDeviceSynchronize();
  } catch (...) {
    // The device is gone, and its calls with it.
  }
}

void CudaMemory::reserve() {
  const DeviceScope scope(device());
  constexpr std::int64_t kLeast = 1 << 20;
  pool_->reserve(kLeast);
}

void CudaMemory::beside_captures(const std::function<void()>& work) const {
  const RelaxedCapture relaxed;
  work();
}

void CudaMemory::retire(std::uint32_t pass, CudaEvent end) {
  forget_retired();
  retired_.push_back({pass, std::move(end)});
}

/// Those whose last call is over.
void CudaMemory::forget_retired() {
  std::erase_if(retired_, [&](const Retired& r) {
    if (r.end.get() != nullptr && cudaEventQuery(r.end.get()) == cudaErrorNotReady) {
      (void)cudaGetLastError();
      return false;
    }
    if (last_call_ == r.end.get()) last_call_ = nullptr;
    watch_->forget(r.pass);
    return true;
  });
}

std::uint32_t CudaMemory::next_pass() {
  forget_retired();
  return ++passes_;
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

/// Owners push what others read of their tensors, and pull what others have of their results: where
/// each rank reaches all others, and nobody said that the other end moves the data. Of pulls from
/// an arena that is a caller's, CUDA may order some (is_ordered), which its signals' memory does
/// not tell.
InPlace CudaMemory::agree_in_place(comm::Communicator& communicator,
                                   const SessionOptions& options) const {
  bool reaches =
      control_.world() > 1 && (options.transport == "auto" || options.transport == "peer");
  bool ordered = !options.arena.empty();
  for (int r = 0; r < control_.world(); ++r) {
    reaches = reaches && control_.of(r) != nullptr;
    for (int other = 0; other < control_.world(); ++other) {
      ordered = ordered || control_.is_ordered(r, other);
    }
  }
  const std::string& copies = options.peer_copies;
  const std::array<char, 2> mine{reaches && copies != "pull",
                                 reaches && (copies == "pull" || (copies == "auto" && !ordered))};
  std::vector<std::array<char, 2>> all(static_cast<std::size_t>(control_.world()));
  communicator.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)),
                          "what is exchanged in place");
  const auto everywhere = [&](std::size_t what) {
    return std::ranges::all_of(all, [&](const auto& rank) { return rank[what] != 0; });
  };
  return {everywhere(0), everywhere(1)};
}

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
  if (transport_ != "peer") in_place_ = {};  // an arena is out of reach, though signals were not
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
  staging_ = std::make_unique<comm::nccl::Staging>(*nccl_);
}

std::unique_ptr<comm::DeviceLink> CudaMemory::make_link(std::vector<comm::DeviceTransfer> transfers,
                                                        std::uint32_t hash) {
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
  by_nccl = std::make_unique<comm::nccl::NcclLink>(driver_, nccl_.get(), std::move(transfers), far,
                                                   *pool_, staging_.get());
  if (transport_ == "nccl") return by_nccl;
  return std::make_unique<comm::composite::CompositeLink>(std::move(by_peer), std::move(by_nccl),
                                                          std::move(near_by));
}

}  // namespace annulus::engine
