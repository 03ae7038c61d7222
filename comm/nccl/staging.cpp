#include "comm/nccl/staging.h"

#include <utility>

namespace annulus::comm::nccl {

Staging::~Staging() {
  for (const Block& block : blocks_) communicator_.detach(block.attached);
}

std::byte* Staging::room_for(std::int64_t bytes) {
  if (bytes == 0) return nullptr;
  if (blocks_.empty() || blocks_.back().memory.bytes() < bytes) {
    Block block{DeviceBuffer(bytes)};
    block.attached =
        communicator_.attach({block.memory.data(), static_cast<std::size_t>(block.memory.bytes())});
    blocks_.push_back(std::move(block));
  }
  return blocks_.back().memory.data();
}

}  // namespace annulus::comm::nccl
