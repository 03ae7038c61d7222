#pragma once

#include "comm/communicator.h"
#include "comm/device/device_link.h"
#include "comm/peer/control_block.h"
#include "comm/peer/driver.h"
#include "comm/peer/symmetric_memory.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace annulus::testing {

struct PeerOptions {
  int transfers = 64;
  bool pulls = true;
  bool given = false;        ///< memory of cudaMalloc instead of the library's choice
  std::int64_t largest = 0;  ///< bytes of the largest transfer
};

/// Medians over rounds, of the slowest rank.
struct PeerRates {
  double one_gb_s = 0;    ///< a single bare copy
  double bare_gb_s = 0;   ///< all copies back to back, no signals
  double rows_gb_s = 0;   ///< bare, read as rows of 4 KiB at a pitch of 8: heads of every token
  double land_gb_s = 0;   ///< bare, written as 16 rows at twice their pitch: heads that lie first
  double peer_gb_s = 0;   ///< as bare, through PeerLink
  double turns_gb_s = 0;  ///< the same on two copy streams in turn, which no session does
  bool right = false;     ///< on every rank
};

/// What stands between two copies of a stream, and what a copy takes with it.
struct PeerGap {
  const char* operations = "";
  double us = 0;
};

/// One rank's transfers from the rank before it and to the rank after it.
class PeerRounds {
 public:
  /// Collective, on the current device.
  PeerRounds(comm::Communicator& communicator, int device, const PeerOptions& options);
  PeerRounds(const PeerRounds&) = delete;
  PeerRounds& operator=(const PeerRounds&) = delete;
  ~PeerRounds();

  /// Collective. Throws Timeout.
  PeerRates measure(std::int64_t bytes);

  /// Collective. Copies of `bytes` with memory operations between them, one call each: each kind
  /// alone, then those of a transfer.
  std::vector<PeerGap> gaps(std::int64_t bytes);

 private:
  std::vector<comm::DeviceTransfer> transfers(std::int64_t bytes) const;
  std::int64_t place(int transfer, std::int64_t bytes) const;
  /// Seconds between the release of a gate and the end of what `enqueue` puts on both streams;
  /// slowest rank.
  double timed(const std::function<void()>& enqueue);
  void copy_one(int transfer, std::int64_t bytes);
  /// `turns`: what moves data goes on two streams in turn.
  void play(const comm::DeviceLink& link, bool turns);
  /// Says what is awaited: 0 flags, 1 copies, as a session's lanes; 2: every other copy.
  std::uint32_t* noted(int stream) const;
  /// A note of the GPU's; 0 too where it cannot be read in a second.
  std::uint32_t read_note(int stream) const;
  void poison(std::int64_t bytes);
  bool is_right(std::int64_t bytes) const;

  comm::Communicator& communicator_;
  PeerOptions options_;
  comm::peer::Driver driver_;
  int before_, after_;  ///< ranks
  std::int64_t room_;   ///< bytes of the source, and of the target behind it
  DeviceBuffer given_;
  comm::peer::SymmetricMemory control_;
  comm::peer::SymmetricMemory arena_;
  std::vector<comm::peer::ControlBlock> blocks_;
  std::uint32_t* words_ = nullptr;  ///< mapped: two gates, notes of others_ and of gaps
  CudaStream flags_ = make_stream();
  CudaStream copies_ = make_urgent_stream();
  CudaStream others_ = make_urgent_stream();  ///< every other copy, where they take turns
  CudaStream reader_ = make_urgent_stream();  ///< of notes, where a round hangs
  CudaEvent begin_ = make_event(true);
  CudaEvent end_ = make_event(true);
  CudaEvent joined_ = make_event();
  CudaEvent others_over_ = make_event();
};

}  // namespace annulus::testing
