#pragma once

#include "runtime/base/clock.h"

#include <mpi.h>

namespace annulus::comm::mpi {

/// Payload and control travel apart, so that neither matches the other's messages.
struct Communicators {
  MPI_Comm payload = MPI_COMM_NULL;
  MPI_Comm control = MPI_COMM_NULL;
};

/// The caller's communicator from its Fortran handle. Throws InvalidArgument if MPI is not
/// initialised or the handle is not an intracommunicator.
MPI_Comm from_fortran(int handle);

/// Collective. Both duplicates return errors instead of ending the process. Throws Timeout naming
/// the ranks that do not answer.
Communicators duplicate(MPI_Comm parent, const Deadline& deadline);

}  // namespace annulus::comm::mpi
