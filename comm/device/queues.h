#pragma once

#include "comm/communicator.h"

#include <cstdint>
#include <span>
#include <string>

namespace annulus::comm {

/// Streams of a rank that may wait for other ranks, or must run while such streams wait: the
/// caller's, the session's copies, the watch's.
constexpr int kStreamsARank = 3;

/// Hardware queues of a GPU for one process, from CUDA_DEVICE_MAX_CONNECTIONS as the environment
/// has it; null: not set.
int hardware_queues(const char* max_connections);

/// Where a rank runs, as others are told.
struct Seat {
  std::int64_t host = 0;  ///< hash of its name
  std::int64_t process = 0;
  std::int32_t device = 0;
  std::int32_t queues = 0;  ///< of this process
};

/// Empty, or which ranks wait behind each other. A stream that waits holds its queue, so ranks that
/// are threads of one process on one GPU need a queue for each of their streams. One rank of a
/// process on a GPU needs one queue: its calls are enqueued in an order that suits it.
std::string crowded_queues(std::span<const Seat> seats);

/// Are any two ranks threads of one process on one GPU? What follows from it is collective.
bool share_gpus(std::span<const Seat> seats);

/// Collective. Throws InvalidArgument, on every rank alike, where crowded_queues() finds something.
/// Returns share_gpus().
bool require_queues(Communicator& communicator, int device);

}  // namespace annulus::comm
