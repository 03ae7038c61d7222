// What only the mpi transport has: large types, ranks that the kernel stops, wrong handles.
#include "comm/mpi/datatype.h"
#include "runtime/base/clock.h"
#include "tests/comm/transfers.h"
#include "tests/support/each_world.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <csignal>
#include <sys/wait.h>
#include <unistd.h>

namespace annulus::testing {
namespace {

using ::testing::HasSubstr;

int mpi_rank() {
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  return rank;
}

/// Stops this process now; a child wakes it up after `seconds`.
void stop_for(unsigned seconds) {
  const pid_t child = fork();
  if (child == 0) {
    sleep(seconds);
    kill(getppid(), SIGCONT);
    _exit(0);
  }
  std::raise(SIGSTOP);
  waitpid(child, nullptr, 0);
}

MPI_Count size_of(const comm::Region& region) {
  const comm::mpi::Datatype type = comm::mpi::make_datatype(region);
  MPI_Count bytes = 0;
  MPI_Type_size_x(type.get(), &bytes);
  return bytes;
}

TEST(MpiDatatype, HoldsRegionsBeyondFourGigabytes) {
  EXPECT_EQ(size_of({.run = 5'000'000'001}), 5'000'000'001);
  EXPECT_EQ(size_of({.run = std::int64_t{1} << 31}), std::int64_t{1} << 31);
  EXPECT_EQ(size_of({.count = {2, 3, 1000},
                     .stride = {std::int64_t{1} << 40, std::int64_t{1} << 36, 20'000'000},
                     .run = 10'000'000}),
            60'000'000'000);
}

// Takes 2.5 GB in each of two ranks, so it runs by hand (--gtest_also_run_disabled_tests).
TEST(MpiTransport, DISABLED_MovesMoreThanTwoGigabytesInOneMessage) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.rank() > 1) return;
        constexpr std::int64_t kBytes = 2'500'000'001;
        Buffer buffer =
            mesh.rank() == 0 ? pattern(0, 1, 0, kBytes) : Buffer(static_cast<std::size_t>(kBytes));
        Transfers transfers(mesh);
        if (mesh.rank() == 0) {
          transfers.send(1, 0, dense(buffer));
        } else {
          transfers.receive(0, 0, dense(buffer));
        }
        transfers.wait();
        const Buffer expected = pattern(0, 1, 0, 1 << 20);
        EXPECT_TRUE(std::equal(expected.begin(), expected.end(), buffer.begin()));
        EXPECT_EQ(buffer.back(), pattern(0, 1, 0, kBytes).back());
      },
      {}, 2);
}

TEST(MpiMesh, SaysThatItIsMpi) {
  each_world([](Mesh& mesh) { EXPECT_EQ(mesh.transport(), "mpi"); });
}

TEST(MpiMesh, RefusesAShapeThatIsNotTheWorld) {
  const int size = world_sizes().front();
  try {
    Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), {.ring = size, .ulysses = 7});
    ADD_FAILURE() << "nothing was thrown";
  } catch (const InvalidArgument& error) {
    EXPECT_THAT(error.what(), HasSubstr(std::to_string(size * 7)));
  }
}

TEST(MpiMesh, ShowsShapesThatDiffer) {
  const int size = world_sizes().front();
  if (size < 2) return;
  const MeshShape shape = mpi_rank() == 0 ? MeshShape{.ring = size} : MeshShape{.ulysses = size};
  EXPECT_THROW(Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), shape), CommError);
}

TEST(MpiMesh, RefusesWhatIsNoCommunicator) {
  EXPECT_THROW(Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_NULL), {}), InvalidArgument);
  EXPECT_THROW(Mesh::from_mpi(123456, {}), InvalidArgument);
}

TEST(MpiMesh, OneRanksUnwritableLogIsAnErrorOnAll) {
  const int size = world_sizes().front();
  MeshOptions options;
  if (mpi_rank() == size - 1) options.log.dir = "/proc/nowhere";
  EXPECT_THROW(Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), {.ring = size}, options),
               InvalidArgument);
}

TEST(MpiMesh, ComesAndGoesManyTimes) {
  for (int trial = 0; trial < 20; ++trial) {
    each_world([](Mesh& mesh) { mesh.impl().communicator->barrier("once"); });
  }
}

TEST(MpiFault, StoppedRankIsNamedByTheOthers) {
  each_world(
      [](Mesh& mesh) {
        if (mesh.rank() == 1) return stop_for(2);
        const Deadline clock(100.0);
        try {
          mesh.impl().communicator->barrier("stopped");
          ADD_FAILURE() << "no Timeout";
        } catch (const Timeout& error) {
          EXPECT_THAT(error.what(), HasSubstr("rank 1 did not arrive"));
        }
        EXPECT_LE(clock.elapsed_s(), 0.5 + 2.0);
      },
      {.timeout_s = 0.5}, 2);
}

// The last one: a set-up that failed leaves MPI with half a communicator.
TEST(MpiFaultZ, RankStoppedBeforeSetUpIsNamedByTheOthers) {
  const int size = world_sizes().front();
  if (size < 2) return;
  if (mpi_rank() == 1) return stop_for(3);
  const Deadline clock(100.0);
  try {
    const Mesh mesh =
        Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), {.ring = size}, {.timeout_s = 0.5});
    ADD_FAILURE() << "no Timeout";
  } catch (const Timeout& error) {
    EXPECT_THAT(error.what(), HasSubstr("mesh set-up"));
    EXPECT_THAT(error.what(), HasSubstr("rank 1 did not arrive"));
  }
  EXPECT_LE(clock.elapsed_s(), 0.5 + 3.0);
}

}  // namespace
}  // namespace annulus::testing
