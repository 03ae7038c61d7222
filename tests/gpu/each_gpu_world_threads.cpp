#include "tests/support/each_world.h"

#include <annulus/device_memory.h>

#include <gtest/gtest.h>

#include <algorithm>

namespace annulus::testing {

/// One rank a GPU, at least two and at most four.
std::vector<int> world_sizes() { return {std::min(std::max(device_count(), 2), 4)}; }

void each_world(const RankBody& body, const MeshOptions& options, int /*at_least*/) {
  EXPECT_NO_THROW(run_ranks(world_sizes().front(), body, options));
}

void on_mesh(MeshShape shape, const RankBody& body) { EXPECT_NO_THROW(run_ranks(shape, body)); }

}  // namespace annulus::testing
