#include "comm/peer/symmetric_memory.h"

#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <span>
#include <string>

namespace annulus::comm::peer {
namespace {

/// What a rank tells the others of its memory.
struct Card {
  char host[64] = {};
  char error[192] = {};  ///< not empty: this rank has none
  char gpu[32] = {};     ///< its PCI bus id
  std::int64_t process = 0;
  int device = 0;
  bool mapped = false;  ///< cuMemCreate: the GPUs of the process that can address it do
  void* pointer = nullptr;
  std::int64_t offset = 0;  ///< from the start of the allocation that `handle` names
  cudaIpcMemHandle_t handle{};
};

template <std::size_t N>
void put(char (&to)[N], const std::string& text) {
  std::strncpy(to, text.c_str(), N - 1);
}

Card make_card(std::string_view host, const Driver& driver, int device, void* pointer,
               bool mapped) {
  Card card;
  put(card.host, std::string(host));
  card.process = getpid();
  card.device = device;
  check_cuda(cudaDeviceGetPCIBusId(card.gpu, sizeof card.gpu, device), "cudaDeviceGetPCIBusId");
  card.mapped = mapped;
  card.pointer = pointer;
  card.offset = -1;
  if (mapped) return card;  // no handle of CUDA IPC names it
  CUdeviceptr base = 0;
  std::size_t size = 0;
  const auto address = reinterpret_cast<CUdeviceptr>(pointer);
  check_driver(driver.address_range(&base, &size, address), "cuMemGetAddressRange");
  card.offset = static_cast<std::int64_t>(address - base);
  if (cudaIpcGetMemHandle(&card.handle, reinterpret_cast<void*>(base)) != cudaSuccess) {
    // Ranks of one process do not need it.
    (void)cudaGetLastError();
    card.offset = -1;
  }
  return card;
}

bool can_reach(int device, int other) {
  int can = device == other ? 1 : 0;
  if (can == 0) check_cuda(cudaDeviceCanAccessPeer(&can, device, other), "cudaDeviceCanAccessPeer");
  return can != 0;
}

/// The GPUs of the ranks that are threads of this process and can address this one's memory, this
/// one included; collective.
std::vector<int> devices_of_process(Communicator& communicator, int device) {
  struct Place {
    std::int64_t process;
    std::int64_t device;
  };
  const Place mine{getpid(), device};
  std::vector<Place> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(all)), "processes and GPUs");
  std::set<int> devices;
  for (const Place& p : all) {
    const auto other = static_cast<int>(p.device);
    if (p.process == mine.process && can_reach(other, device)) devices.insert(other);
  }
  return {devices.begin(), devices.end()};
}

/// Ranks that are threads share addresses. Memory of cuMemCreate is mapped for both GPUs already;
/// for other memory they must be told of each other, which maps all that either allocates for both,
/// so that cudaMalloc and cudaFree of one then wait for the other: not without need.
void reach_in_process(const Card& card, int device) {
  if (card.device == device) return;
  if (!can_reach(device, card.device)) {
    throw Unsupported(fmt::format("GPUs {} and {} cannot reach each other", device, card.device));
  }
  if (card.mapped) return;
  const cudaError_t code = cudaDeviceEnablePeerAccess(card.device, 0);
  (void)cudaGetLastError();  // "already enabled" is no error here
  if (code != cudaSuccess && code != cudaErrorPeerAccessAlreadyEnabled) {
    throw Unsupported(fmt::format("GPUs {} and {} cannot reach each other: {}", device, card.device,
                                  cudaGetErrorString(code)));
  }
}

void* reach_by_ipc(const Card& card) {
  if (card.offset < 0) {
    throw Unsupported("CUDA IPC cannot export its arena: it must come from cudaMalloc");
  }
  void* base = nullptr;
  check_cuda(cudaIpcOpenMemHandle(&base, card.handle, cudaIpcMemLazyEnablePeerAccess),
             "cudaIpcOpenMemHandle");
  return base;
}

}  // namespace

SymmetricMemory::SymmetricMemory(Communicator& communicator, const Driver& driver,
                                 std::string_view host, int device, std::int64_t bytes,
                                 std::span<std::byte> arena)
    : communicator_(communicator),
      rank_(communicator.rank()),
      device_(device),
      bytes_(arena.empty() ? bytes : static_cast<std::int64_t>(arena.size())),
      bases_(static_cast<std::size_t>(communicator.size()), nullptr),
      mapped_(bases_.size(), nullptr),
      why_not_(bases_.size()) {
  const DeviceScope scope(device);
  const std::vector<int> devices = devices_of_process(communicator, device);
  Card mine;
  try {
    std::byte* memory = arena.data();
    if (arena.empty() && devices.size() > 1) {
      shared_ = std::make_unique<MappedMemory>(driver, device, std::max<std::int64_t>(bytes, 256),
                                               devices);
      memory = shared_->data();
    } else if (arena.empty()) {
      own_ = DeviceBuffer(std::max<std::int64_t>(bytes, 256));
      memory = own_.data();
    }
    mine = make_card(host, driver, device, memory, shared_ != nullptr);
  } catch (const std::exception& error) {
    put(mine.error, error.what());
  }
  std::vector<Card> cards(bases_.size());
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(cards)), "symmetric memory");
  for (std::size_t r = 0; r < cards.size(); ++r) {
    if (cards[r].error[0] != 0) throw DeviceError(fmt::format("rank {}: {}", r, cards[r].error));
  }
  std::set<std::string> gpus;
  for (const Card& card : cards) {
    places_.push_back({card.process, card.device, card.mapped});
    own_gpus_ = gpus.insert(fmt::format("{} {}", card.host, card.gpu)).second && own_gpus_;
  }
  for (std::size_t r = 0; r < cards.size(); ++r) {
    const Card& card = cards[r];
    try {
      if (static_cast<int>(r) == rank_) {
        bases_[r] = static_cast<std::byte*>(mine.pointer);
      } else if (std::strcmp(card.host, mine.host) != 0) {
        why_not_[r] = fmt::format("it is on host {}, this one on {}", card.host, mine.host);
      } else if (card.process == mine.process) {
        reach_in_process(card, device);
        bases_[r] = static_cast<std::byte*>(card.pointer);
      } else {
        mapped_[r] = reach_by_ipc(card);
        bases_[r] = static_cast<std::byte*>(mapped_[r]) + card.offset;
      }
    } catch (const std::exception& error) {
      why_not_[r] = error.what();
    }
  }
}

bool SymmetricMemory::is_ordered(int owner, int reader) const {
  const Place& a = places_[static_cast<std::size_t>(owner)];
  const Place& b = places_[static_cast<std::size_t>(reader)];
  return a.process == b.process && a.device != b.device && !a.mapped;
}

void SymmetricMemory::close() noexcept {
  for (void*& base : mapped_) {
    if (base != nullptr) (void)cudaIpcCloseMemHandle(base);
    base = nullptr;
  }
}

SymmetricMemory::~SymmetricMemory() {
  try {
    const DeviceScope scope(device_);
    close();
    // Nobody may free what another rank still maps or reads.
    communicator_.barrier("symmetric memory is dropped");
    own_ = DeviceBuffer();
    shared_.reset();
  } catch (...) {
    if (shared_) shared_->leak();
    own_.leak();  // the mesh is dead: others may still read it, and it goes with the process
  }
}

}  // namespace annulus::comm::peer
