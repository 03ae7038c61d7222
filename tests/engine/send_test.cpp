// send and receive between any two ranks, on every transport.
#include "tests/support/each_world.h"

#include <annulus/collective.h>
#include <annulus/error.h>

#include <gtest/gtest.h>

#include <vector>

namespace annulus::testing {
namespace {

TEST(Send, BytesArriveFromEveryRank) {
  each_world([](Mesh& mesh) {
    for (const std::size_t bytes : {std::size_t{0}, std::size_t{1}, std::size_t{100'000}}) {
      for (int r = 1; r < mesh.world(); ++r) {
        std::vector<std::byte> data(bytes, std::byte(mesh.rank() + 1));
        if (mesh.rank() == r) send(mesh, 0, data);
        if (mesh.rank() != 0) continue;
        receive(mesh, r, data);
        EXPECT_EQ(data, std::vector<std::byte>(bytes, std::byte(r + 1)));
      }
    }
  });
}

TEST(Send, RefusesItselfAndRanksThatAreNone) {
  each_world([](Mesh& mesh) {
    std::vector<std::byte> data(4);
    EXPECT_THROW(send(mesh, mesh.rank(), data), InvalidArgument);
    EXPECT_THROW(receive(mesh, mesh.world(), data), InvalidArgument);
    barrier(mesh);
  });
}

}  // namespace
}  // namespace annulus::testing
