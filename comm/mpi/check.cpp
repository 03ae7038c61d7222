#include "comm/mpi/check.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <mpi.h>

#include <array>

namespace annulus::comm::mpi {

void check(int code, std::string_view call) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING + 1> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw CommError(fmt::format("{} failed: {}", call, text.data()));
}

bool usable() noexcept {
  int initialized = 0;
  int finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  return initialized != 0 && finalized == 0;
}

}  // namespace annulus::comm::mpi
