#pragma once

#include "launch/world.h"

#include <annulus/mesh.h>

#include <functional>
#include <string>
#include <vector>

namespace annulus::launch {

/// What one rank does; returns its exit code, the same on every rank.
using RankBody = std::function<int(Mesh&)>;

struct RanksRequest {
  World started;
  MeshShape shape;
  MeshOptions options;
  std::string transport;  ///< "local" or "mpi"
};

/// Of several runs: the same, and which run it is.
using RunsBody = std::function<int(Mesh&, std::size_t run)>;

/// Runs `body` as every rank of this process: `world` threads, or the one that mpirun started. A
/// rank that is lost ends the process here with code 3, past MPI_Finalize; InvalidArgument and
/// Unsupported, which ranks throw alike, leave as they came.
int run_ranks(const RanksRequest& request, const RankBody& body);
/// One run after another, since MPI can be started only once; returns the worst of their codes.
int run_ranks(const std::vector<RanksRequest>& runs, const RunsBody& body);

/// MPI alone; where MPI is not built no_mpi_ranks.cpp takes its place and throws Unsupported.
int run_mpi_rank(const std::vector<RanksRequest>& runs, const RunsBody& body);
/// What doctor says about MPI, in words.
struct MpiFacts {
  bool built = false;
  std::string version;     ///< "Open MPI v4.1.4"
  std::string standard;    ///< "3.1"
  std::string threads;     ///< the thread level, where MPI runs
  std::string cuda_aware;  ///< as far as this MPI tells
};
MpiFacts mpi_facts();

/// "Open MPI v4.1.4, ..." or "not built".
std::string mpi_version();

}  // namespace annulus::launch
