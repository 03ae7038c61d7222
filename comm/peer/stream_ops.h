#pragma once

#include "comm/device/planes.h"
#include "comm/peer/driver.h"

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>

namespace annulus::comm::peer {

/// Memory operations that the front end of a GPU does in stream order without an SM: a few of them
/// in one call. They are ordered among themselves.
class StreamBatch {
 public:
  StreamBatch(const Driver& driver, cudaStream_t stream) : driver_(driver), stream_(stream) {}

  /// Writes `value`, to our memory, a peer's or the host's, after what is before it in the stream.
  /// Of writes to one word that follow each other the last is made.
  void write(std::uint32_t* word, std::uint32_t value);
  /// Holds the stream until the word is no less than `value` (see signal_value).
  void await(std::uint32_t* word, std::uint32_t value);
  /// The same, then resets it.
  void consume(std::uint32_t* signal, std::uint32_t value);
  void enqueue();
  /// What follows is for that stream. Enqueues what is for another.
  void turn_to(cudaStream_t stream);

 private:
  static constexpr std::size_t kMost =
      64;  ///< the driver takes fewer than 256; more: several calls

  CUstreamBatchMemOpParams& next();

  const Driver& driver_;
  cudaStream_t stream_;
  std::array<CUstreamBatchMemOpParams, kMost> ops_;
  std::size_t count_ = 0;
};

void copy(cudaStream_t stream, const Plane& plane);

/// Has the driver load its own kernels for copies within the current GPU, which it would do at the
/// first such copy, and wait for all that runs in the context (runtime/base/kernel_entries.h).
/// Allocates, and waits for the stream.
void load_copies(cudaStream_t stream);

}  // namespace annulus::comm::peer
