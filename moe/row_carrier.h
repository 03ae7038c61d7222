#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace annulus::moe {

/// Device memory to or from a rank of the group (this one too), in one piece.
struct RowMessage {
  bool sends = false;
  int peer = 0;
  std::byte* data = nullptr;
  std::int64_t bytes = 0;
};

/// Moves rows where ranks do not address each other's memory, as between hosts.
class RowCarrier {
 public:
  virtual ~RowCarrier() = default;

  /// All messages of one exchange, after what `stream` was given. Those between two ranks meet in
  /// the order given. Everybody of the group calls; when it returns, all are over. `phase`: for
  /// messages. Throws Timeout, CommError.
  virtual void exchange(const char* phase, std::span<const RowMessage> messages, void* stream) = 0;
};

}  // namespace annulus::moe
