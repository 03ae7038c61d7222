#pragma once

#include "comm/nccl/nccl_communicator.h"
#include "runtime/base/device_buffer.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::comm::nccl {

/// Where messages that are not in one piece are packed: one for all links of a session, since their
/// messages go on one stream, each packed, sent and unpacked before the next. NCCL knows this
/// memory.
class Staging {
 public:
  explicit Staging(const NcclCommunicator& communicator) : communicator_(communicator) {}
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;
  ~Staging();

  /// On the current device: at least `bytes`, the same for all who ask. More than ever before is
  /// allocated and made known to NCCL, for which both wait: so a session asks first, for its
  /// largest problem. What others have stays where it is. Throws DeviceError.
  std::byte* room_for(std::int64_t bytes);

 private:
  struct Block {
    DeviceBuffer memory;
    void* attached = nullptr;
  };
  const NcclCommunicator& communicator_;
  std::vector<Block> blocks_;  ///< each larger than those before
};

}  // namespace annulus::comm::nccl
