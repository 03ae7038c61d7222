#include "comm/local/local_transport.h"

#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::comm::local {

LocalTransport::LocalTransport(std::shared_ptr<Board> board, int rank,
                               const std::atomic<bool>& aborted)
    : board_(std::move(board)), rank_(rank), aborted_(aborted) {}

LocalTransport::~LocalTransport() { cancel(); }

Transport::Ticket LocalTransport::start(const TransferEnd& end) {
  if (cancelled_) throw CommError(fmt::format("rank {}: the transport was cancelled", rank_));
  if (end.peer < 0 || end.peer >= board_->size()) {
    throw InvalidArgument(fmt::format("peer {} is not one of {} ranks", end.peer, board_->size()));
  }
  const Key key{.sender = end.sends ? rank_ : end.peer,
                .receiver = end.sends ? end.peer : rank_,
                .tag = end.tag};
  return flights_.add({.match = board_->exchange().join(key, end.sends, end.region),
                       .bytes = end.region.bytes(),
                       .sends = end.sends,
                       .copies = !end.sends || end.peer == rank_});
}

bool LocalTransport::done(Ticket ticket) {
  Flight& flight = flights_.at(ticket);
  if (flight.copies) flight.match->try_copy();
  if (!flight.match->done()) return false;
  if (flight.sends) bytes_sent_ += flight.bytes;
  flights_.remove(ticket);
  return true;
}

void LocalTransport::check() const {
  if (aborted_.load(std::memory_order_relaxed)) {
    throw CommError(abort_text(rank_, board_->size()));
  }
  if (const auto failure = board_->failure_seen_by(rank_)) throw CommError(*failure);
}

void LocalTransport::progress() {
  check();
  flights_.for_each([](Flight& flight) {
    if (flight.copies) flight.match->try_copy();
  });
}

void LocalTransport::cancel() noexcept {
  cancelled_ = true;
  flights_.for_each([](Flight& flight) { flight.match->drop(); });
  flights_.clear();
}

}  // namespace annulus::comm::local
