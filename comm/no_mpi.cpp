#include "comm/communicator.h"

#include <annulus/error.h>

namespace annulus::comm {

bool mpi_built() { return false; }

std::unique_ptr<Communicator> make_mpi_communicator(int /*fortran_communicator*/,
                                                    double /*timeout_s*/, bool /*shared*/) {
  throw Unsupported(
      "this build has no mpi transport, only local (ranks are threads of one process): install MPI "
      "(apt-get install openmpi-bin libopenmpi-dev) and configure with ANNULUS_WITH_MPI=ON");
}

}  // namespace annulus::comm
