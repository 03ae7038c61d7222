#pragma once

#include "comm/backoff.h"
#include "comm/mpi/control.h"
#include "comm/slots.h"

#include <mpi.h>

namespace annulus::comm::mpi {

/// Each region is one nonblocking message of a derived datatype; nothing is packed by us. MPI keeps
/// messages of one (sender, receiver, tag) in order.
class MpiTransport final : public Transport {
 public:
  /// `control` outlives the transport. `crowded`: this host has more ranks than cores.
  MpiTransport(MPI_Comm comm, Control& control, bool crowded);
  ~MpiTransport() override;

  const char* name() const override { return "mpi"; }
  Ticket start(const TransferEnd& end) override;
  bool done(Ticket ticket) override;
  void progress() override;
  /// Naps only where polls do not move transfers themselves: regions of one run are mostly copied
  /// whole by the receiver, others pass through small buffers, and whoever naps between two of them
  /// loses most of the rate. With a core for each rank a poll takes from nobody.
  void rest(Backoff& backoff) override {
    backoff.idle(flights_.empty() || (crowded_ && strided_ == 0));
  }
  void cancel() noexcept override;
  std::int64_t bytes_sent() const override { return bytes_sent_; }

  bool idle() const { return flights_.empty() && !cancelled_; }

 private:
  struct Flight {
    MPI_Request request = MPI_REQUEST_NULL;
    std::int64_t bytes = 0;
    bool sends = false;
    bool strided = false;
  };
  void check_end(const TransferEnd& end) const;

  const MPI_Comm comm_;
  Control& control_;
  const bool crowded_;
  int tag_limit_ = 32767;
  Slots<Flight> flights_;
  int strided_ = 0;  ///< flights of more than one run
  std::int64_t bytes_sent_ = 0;
  bool cancelled_ = false;
};

}  // namespace annulus::comm::mpi
