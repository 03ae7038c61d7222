#include "comm/mpi/mpi_transport.h"

#include "comm/mpi/check.h"
#include "comm/mpi/datatype.h"
#include "runtime/base/clock.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::comm::mpi {

namespace {

constexpr double kCancelGrace = 0.2;  // seconds

}  // namespace

MpiTransport::MpiTransport(MPI_Comm comm, Control& control, bool crowded)
    : comm_(comm), control_(control), crowded_(crowded) {
  int* limit = nullptr;
  int found = 0;
  check(MPI_Comm_get_attr(comm_, MPI_TAG_UB, &limit, &found), "MPI_Comm_get_attr");
  if (found != 0) tag_limit_ = *limit;
}

MpiTransport::~MpiTransport() {
  if (!flights_.empty()) cancel();
}

void MpiTransport::check_end(const TransferEnd& end) const {
  if (cancelled_) {
    throw CommError(fmt::format("rank {}: the transport was cancelled", control_.rank()));
  }
  if (end.peer < 0 || end.peer >= control_.size()) {
    throw InvalidArgument(fmt::format("peer {} is not one of {} ranks", end.peer, control_.size()));
  }
  // Tags taken modulo the limit could pair the wrong transfers, so they are refused. A plan counts
  // its tags from 0 for each pair of ranks and stays far below.
  if (end.tag < 0 || end.tag > tag_limit_) {
    throw InvalidArgument(
        fmt::format("tag {} is not between 0 and {}, this MPI's largest", end.tag, tag_limit_));
  }
}

Transport::Ticket MpiTransport::start(const TransferEnd& end) {
  check_end(end);
  Flight flight{.bytes = end.region.bytes(), .sends = end.sends};
  if (flight.bytes == 0) return flights_.add(flight);  // both ends know: no message
  flight.strided = coalesce(end.region).run < flight.bytes;
  const Datatype type = make_datatype(end.region);
  if (end.sends) {
    check(MPI_Isend(end.region.base, 1, type.get(), end.peer, end.tag, comm_, &flight.request),
          "MPI_Isend");
  } else {
    check(MPI_Irecv(end.region.base, 1, type.get(), end.peer, end.tag, comm_, &flight.request),
          "MPI_Irecv");
  }
  strided_ += flight.strided ? 1 : 0;
  return flights_.add(flight);
}

bool MpiTransport::done(Ticket ticket) {
  Flight& flight = flights_.at(ticket);
  int flag = 0;
  check(MPI_Test(&flight.request, &flag, MPI_STATUS_IGNORE),
        flight.sends ? "MPI_Isend" : "MPI_Irecv");
  if (flag == 0) return false;
  if (flight.sends) bytes_sent_ += flight.bytes;
  strided_ -= flight.strided ? 1 : 0;
  flights_.remove(ticket);
  return true;
}

void MpiTransport::progress() {
  control_.pump();
  control_.check();
}

void MpiTransport::cancel() noexcept {
  cancelled_ = true;
  if (!usable()) return flights_.clear();
  flights_.for_each([](Flight& flight) {
    if (!flight.sends && flight.request != MPI_REQUEST_NULL) MPI_Cancel(&flight.request);
  });
  // What cannot be cancelled (sends, messages that already match) gets a moment to end, since MPI
  // still refers to the caller's memory. The rest is left to MPI: freeing a request could hang.
  bool open = true;
  for (const Deadline grace(kCancelGrace); open && !grace.expired();) {
    open = false;
    flights_.for_each([&](Flight& flight) {
      int flag = 0;
      MPI_Test(&flight.request, &flag, MPI_STATUS_IGNORE);
      open |= flag == 0;
    });
  }
  flights_.clear();
}

}  // namespace annulus::comm::mpi
