#pragma once

#include <functional>
#include <string>

namespace annulus::launch {

/// The processes that a launcher started. Known before MPI is initialised, so that a wrong call is
/// reported once and ends alike everywhere.
struct World {
  int rank = 0;
  int size = 1;
  std::string launcher;  ///< "mpirun", "srun"; empty: none

  bool launched() const { return !launcher.empty(); }
};

using GetVariable = std::function<const char*(const char*)>;

/// From what Open MPI, PMI and Slurm put into the environment.
World detect_world(const GetVariable& get);

}  // namespace annulus::launch
