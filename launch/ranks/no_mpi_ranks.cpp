#include "launch/ranks/ranks.h"

#include <annulus/error.h>

namespace annulus::launch {

int run_mpi_rank(const RanksRequest&, const RankBody&) {
  throw Unsupported(
      "transport mpi is not built (MPI was not found when Annulus was configured); "
      "built: local");
}

std::string mpi_version() { return "not built"; }

}  // namespace annulus::launch
