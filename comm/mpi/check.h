#pragma once

#include <string_view>

namespace annulus::comm::mpi {

/// Throws CommError with MPI's text. Meaningful where errors return (MPI_ERRORS_RETURN).
void check(int code, std::string_view call);

/// False before MPI_Init and after MPI_Finalize, when no MPI call may be made.
bool usable() noexcept;

}  // namespace annulus::comm::mpi
