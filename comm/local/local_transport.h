#pragma once

#include "comm/local/board.h"
#include "comm/slots.h"

#include <atomic>
#include <memory>

namespace annulus::comm::local {

/// Moves regions between threads of one process. The receiver copies, in progress() or done(), so
/// that the bytes end up in its cache and a sender never works for others.
class LocalTransport final : public Transport {
 public:
  /// `aborted` outlives the transport.
  LocalTransport(std::shared_ptr<Board> board, int rank, const std::atomic<bool>& aborted);
  ~LocalTransport() override;

  const char* name() const override { return "local"; }
  Ticket start(const TransferEnd& end) override;
  bool done(Ticket ticket) override;
  void progress() override;
  void cancel() noexcept override;
  std::int64_t bytes_sent() const override { return bytes_sent_; }

  /// Throws CommError after an abort or a failure report.
  void check() const;

 private:
  struct Flight {
    std::shared_ptr<Match> match;
    std::int64_t bytes = 0;
    bool sends = false;
    bool copies = false;  // this rank is the receiver
  };

  std::shared_ptr<Board> board_;
  const int rank_;
  const std::atomic<bool>& aborted_;
  Slots<Flight> flights_;
  std::int64_t bytes_sent_ = 0;
  bool cancelled_ = false;
};

}  // namespace annulus::comm::local
