#include "launch/ranks/ranks.h"

#include <annulus/error.h>

namespace annulus::launch {

int run_mpi_rank(const std::vector<RanksRequest>&, const RunsBody&) {
  throw Unsupported(
      "transport mpi is not built (MPI was not found when Annulus was configured); "
      "built: local");
}

MpiFacts mpi_facts() {
  return {
      .built = false, .version = mpi_version(), .standard = {}, .threads = {}, .cuda_aware = {}};
}

std::string mpi_version() { return "not built"; }

}  // namespace annulus::launch
