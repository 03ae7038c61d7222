#pragma once

#include "comm/peer/driver.h"

#include <cuda_runtime_api.h>

#include <cstdint>

namespace annulus::engine {

/// Holds a stream until the host says so, by a memory operation, without an SM: what is enqueued
/// behind it starts when all of it is there, and not as fast as the host enqueues.
class StreamGate {
 public:
  /// On the current device; allocates.
  StreamGate();
  StreamGate(const StreamGate&) = delete;
  StreamGate& operator=(const StreamGate&) = delete;
  ~StreamGate();

  void hold(cudaStream_t stream) const;
  void open() const;

 private:
  comm::peer::Driver driver_;
  std::uint32_t* word_ = nullptr;  ///< mapped host memory
};

}  // namespace annulus::engine
