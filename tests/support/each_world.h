#pragma once

#include "tests/support/run_ranks.h"

#include <annulus/mesh.h>

#include <vector>

namespace annulus::testing {

/// Runs `body` on every world that the test program has: with each_world_threads.cpp 1, 2, 3, 4, 5
/// and 8 threads, with each_world_mpi.cpp all processes that mpirun started. Worlds of fewer than
/// `at_least` ranks are left out. Exceptions become test failures.
void each_world(const RankBody& body, const MeshOptions& options = {}, int at_least = 1);

/// Runs `body` on a mesh of this shape: on threads, or on the processes that mpirun started, where
/// they are as many; else not at all. Exceptions become test failures.
void on_mesh(MeshShape shape, const RankBody& body);

/// Sizes of the worlds above.
std::vector<int> world_sizes();

}  // namespace annulus::testing
