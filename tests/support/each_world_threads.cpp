#include "tests/support/each_world.h"

#include <gtest/gtest.h>

namespace annulus::testing {

std::vector<int> world_sizes() { return {1, 2, 3, 4, 5, 8}; }

void each_world(const RankBody& body, const MeshOptions& options, int at_least) {
  for (const int size : world_sizes()) {
    if (size < at_least) continue;
    SCOPED_TRACE(std::to_string(size) + " threads");
    EXPECT_NO_THROW(run_ranks(size, body, options));
  }
}

void on_mesh(MeshShape shape, const RankBody& body) { EXPECT_NO_THROW(run_ranks(shape, body)); }

}  // namespace annulus::testing
