#pragma once

#include "launch/world.h"

#include <annulus/mesh.h>

#include <functional>
#include <string>

namespace annulus::launch {

/// What one rank does; returns its exit code, the same on every rank.
using RankBody = std::function<int(Mesh&)>;

struct RanksRequest {
  World started;
  MeshShape shape;
  MeshOptions options;
  std::string transport;  ///< "local" or "mpi"
};

/// Runs `body` as every rank of this process: `world` threads, or the one that mpirun started. A
/// rank that is lost ends the process here with code 3, past MPI_Finalize; InvalidArgument and
/// Unsupported, which ranks throw alike, leave as they came.
int run_ranks(const RanksRequest& request, const RankBody& body);

/// MPI alone; where MPI is not built no_mpi_ranks.cpp takes its place and throws Unsupported.
int run_mpi_rank(const RanksRequest& request, const RankBody& body);
/// "Open MPI v4.1.4, ..." or "not built".
std::string mpi_version();

}  // namespace annulus::launch
