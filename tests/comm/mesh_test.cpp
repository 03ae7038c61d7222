#include "tests/support/each_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <mutex>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

TEST(Mesh, KnowsItsPlace) {
  each_world([](Mesh& mesh) {
    EXPECT_GE(mesh.rank(), 0);
    EXPECT_LT(mesh.rank(), mesh.world());
    EXPECT_EQ(mesh.shape(), MeshShape{.ring = mesh.world()});
    EXPECT_FALSE(mesh.impl().communicator->host().empty());
    Mesh moved = std::move(mesh);
    EXPECT_EQ(moved.world(), moved.shape().world());
    mesh.abort();  // a moved-from mesh has nothing to abort
    mesh = std::move(moved);
  });
}

TEST(Mesh, SingleIsOneRank) {
  const Mesh mesh = Mesh::single();
  EXPECT_EQ(mesh.rank(), 0);
  EXPECT_EQ(mesh.world(), 1);
  EXPECT_EQ(mesh.transport(), "local");
  EXPECT_NO_THROW(mesh.impl().communicator->barrier("alone"));
}

TEST(Mesh, RefusesDegreesAndTimeoutsThatMeanNothing) {
  EXPECT_THROW(Mesh::threads({.ring = 0}), InvalidArgument);
  EXPECT_THROW(Mesh::threads({.ring = 2, .ulysses = -1}), InvalidArgument);
  EXPECT_THROW(Mesh::threads({.expert = 0}), InvalidArgument);
  EXPECT_THROW(Mesh::threads({.ring = 1 << 20, .ulysses = 1 << 20}), InvalidArgument);
  for (const double timeout_s : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(Mesh::single({.timeout_s = timeout_s}), InvalidArgument);
  }
  try {
    Mesh::threads({.ring = -3});
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr("-3"));
  }
}

TEST(Mesh, AcceptsAnInfiniteTimeout) {
  EXPECT_NO_THROW(run_ranks(2, [](Mesh& mesh) { mesh.impl().communicator->barrier("forever"); },
                            {.timeout_s = std::numeric_limits<double>::infinity()}));
}

TEST(Mesh, LogsToTheCallersSink) {
  std::mutex mutex;
  std::vector<std::string> lines;
  MeshOptions options;
  options.log.level = static_cast<int>(LogLevel::debug);
  options.log.sink = [&](LogLevel, std::string_view line) {
    const std::scoped_lock lock(mutex);
    lines.emplace_back(line);
  };
  run_ranks(
      {.ring = 2, .ulysses = 2}, [](Mesh&) {}, options);
  ASSERT_EQ(lines.size(), 4U);
  EXPECT_THAT(lines[3], HasSubstr("[3/4 "));
  EXPECT_THAT(lines[3], HasSubstr("ring 2 x ulysses 2"));
}

TEST(RunRanks, ThrowsWhatTheFirstRankThrew) {
  try {
    run_ranks(3, [](Mesh& mesh) {
      if (mesh.rank() == 2) throw Unsupported("no such thing");
      mesh.impl().communicator->barrier("the others wait");
    });
    ADD_FAILURE() << "nothing was thrown";
  } catch (const Unsupported& error) {
    EXPECT_STREQ(error.what(), "rank 2: no such thing");
  }
}

}  // namespace
}  // namespace annulus::testing
