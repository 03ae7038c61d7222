#include "comm/mpi/setup.h"

#include "comm/backoff.h"
#include "comm/mpi/check.h"
#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <vector>

namespace annulus::comm::mpi {

namespace {

constexpr int kRollCallTag = 32749;
constexpr double kRollCallGrace = 1.0;  // seconds

/// The caller's error handler usually ends the process; here errors are to become exceptions.
class ErrorsReturn {
 public:
  explicit ErrorsReturn(MPI_Comm comm) : comm_(comm) {
    MPI_Comm_get_errhandler(comm_, &old_);
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN);
  }
  ~ErrorsReturn() {
    MPI_Comm_set_errhandler(comm_, old_);
    MPI_Errhandler_free(&old_);
  }
  ErrorsReturn(const ErrorsReturn&) = delete;
  ErrorsReturn& operator=(const ErrorsReturn&) = delete;

 private:
  MPI_Comm comm_;
  MPI_Errhandler old_{};
};

/// Set-up failed by its deadline: ranks that still run say so to each other, and those that are
/// silent are the culprits. Uses the caller's communicator, which is only done on this dead end:
/// its other traffic could match.
std::vector<int> silent_ranks(MPI_Comm parent, int rank, int size) {
  std::vector<char> heard(static_cast<std::size_t>(size), 0);
  heard[static_cast<std::size_t>(rank)] = 1;
  for (int peer = 0; peer < size; ++peer) {
    if (peer == rank) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    MPI_Isend(nullptr, 0, MPI_BYTE, peer, kRollCallTag, parent, &request);
    if (request != MPI_REQUEST_NULL) MPI_Request_free(&request);
  }
  Backoff backoff;
  for (const Deadline grace(kRollCallGrace); !grace.expired(); backoff.idle()) {
    int flag = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, kRollCallTag, parent, &flag, &status);
    if (flag == 0) continue;
    MPI_Recv(nullptr, 0, MPI_BYTE, status.MPI_SOURCE, kRollCallTag, parent, MPI_STATUS_IGNORE);
    heard[static_cast<std::size_t>(status.MPI_SOURCE)] = 1;
  }
  std::vector<int> silent;
  for (int peer = 0; peer < size; ++peer) {
    if (heard[static_cast<std::size_t>(peer)] == 0) silent.push_back(peer);
  }
  return silent;
}

MPI_Comm duplicate_one(MPI_Comm parent, const Deadline& deadline) {
  int rank = 0;
  int size = 0;
  check(MPI_Comm_rank(parent, &rank), "MPI_Comm_rank");
  check(MPI_Comm_size(parent, &size), "MPI_Comm_size");
  // MPI writes here when it is done, which may be after this function gave up: never freed then.
  auto* copy = new MPI_Comm(MPI_COMM_NULL);
  MPI_Request request = MPI_REQUEST_NULL;
  check(MPI_Comm_idup(parent, copy, &request), "MPI_Comm_idup");
  Backoff backoff;
  for (int flag = 0; flag == 0; backoff.idle()) {
    check(MPI_Test(&request, &flag, MPI_STATUS_IGNORE), "MPI_Test of MPI_Comm_idup");
    if (flag == 0 && deadline.expired()) {
      const double waited_s = deadline.elapsed_s();
      throw Timeout(timeout_text(rank, size, "mesh set-up (MPI_Comm_idup)", waited_s,
                                 silent_ranks(parent, rank, size)));
    }
  }
  const MPI_Comm result = *copy;
  delete copy;
  check(MPI_Comm_set_errhandler(result, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return result;
}

}  // namespace

MPI_Comm from_fortran(int handle) {
  if (!usable()) {
    throw InvalidArgument(
        "MPI is not initialised, or already finalised: the caller does both, not this library");
  }
  const MPI_Comm comm = MPI_Comm_f2c(static_cast<MPI_Fint>(handle));
  const ErrorsReturn guard(MPI_COMM_WORLD);  // where MPI raises errors of handles that are none
  int inter = 0;
  if (comm == MPI_COMM_NULL || MPI_Comm_test_inter(comm, &inter) != MPI_SUCCESS) {
    throw InvalidArgument(fmt::format("{} is not the handle of a communicator", handle));
  }
  if (inter != 0) throw InvalidArgument("an intercommunicator cannot hold a mesh");
  return comm;
}

Communicators duplicate(MPI_Comm parent, const Deadline& deadline) {
  const ErrorsReturn guard(parent);
  Communicators result;
  result.control = duplicate_one(parent, deadline);
  result.payload = duplicate_one(parent, deadline);
  return result;
}

}  // namespace annulus::comm::mpi
