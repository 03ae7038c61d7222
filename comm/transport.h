#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace annulus::comm {

class Backoff;

/// Memory of one rank as a strided box of equal runs of bytes:
/// base + i0 * stride[0] + i1 * stride[1] + i2 * stride[2], `run` bytes each.
struct Region {
  std::byte* base = nullptr;
  std::array<std::int64_t, 3> count{1, 1, 1};
  std::array<std::int64_t, 3> stride{0, 0, 0};  ///< bytes
  std::int64_t run = 0;                         ///< bytes

  std::int64_t bytes() const { return count[0] * count[1] * count[2] * run; }
  bool operator==(const Region&) const = default;
};

/// The same region with adjacent runs joined, so that a dense box is one run.
Region coalesce(Region region);

/// Copies run by run. Both have the same number of bytes; their shapes may differ.
void copy_region(const Region& source, const Region& target);

/// One end of a transfer. Both ends name the same (sender, receiver, tag) and move the same bytes;
/// plans agree on this before any payload.
struct TransferEnd {
  bool sends = false;
  int peer = 0;
  std::int32_t tag = 0;
  Region region;
};

/// Moves regions between ranks. Belongs to one rank and one thread. A started send owns its source
/// until it is done, a started receive its destination.
class Transport {
 public:
  using Ticket = std::int32_t;

  virtual ~Transport() = default;
  virtual const char* name() const = 0;

  /// Never blocks. peer == this rank is allowed.
  virtual Ticket start(const TransferEnd& end) = 0;

  /// Polls; true once. A ticket is forgotten after it returned true.
  virtual bool done(Ticket ticket) = 0;

  /// Lets the library below work and returns at once: it is called between the tiles of kernels.
  /// Throws CommError when the mesh was aborted, by this rank or by another one's failure report.
  virtual void progress() = 0;

  /// For whoever has nothing to do until a transfer moves: gives the processor away for a moment,
  /// some milliseconds at most. `backoff` is that of this wait.
  virtual void rest(Backoff& backoff);

  /// Drops all tickets without waiting; the transport is unusable afterwards.
  virtual void cancel() noexcept = 0;

  /// Payload bytes of this rank's finished sends since creation.
  virtual std::int64_t bytes_sent() const = 0;
};

}  // namespace annulus::comm
