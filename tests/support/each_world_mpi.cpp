#include "tests/support/each_world.h"

#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>

namespace annulus::testing {

namespace {

int mpi_size() {
  int size = 0;
  MPI_Comm_size(MPI_COMM_WORLD, &size);
  return size;
}

/// Ranks other than 0 print only what failed.
class FailurePrinter final : public ::testing::EmptyTestEventListener {
 public:
  explicit FailurePrinter(int rank) : rank_(rank) {}

 private:
  void OnTestPartResult(const ::testing::TestPartResult& result) override {
    if (!result.failed()) return;
    std::fprintf(stderr, "rank %d: %s:%d: %s\n", rank_, result.file_name(), result.line_number(),
                 result.summary());
  }
  int rank_;
};

/// All processes as a mesh.
void on_processes(MeshShape shape, const RankBody& body, const MeshOptions& options) {
  try {
    Mesh mesh = Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), shape, options);
    try {
      body(mesh);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "rank " << mesh.rank() << ": " << error.what();
      mesh.impl().communicator->report_failure(error.what());
    }
  } catch (const std::exception& error) {
    ADD_FAILURE() << "mesh set-up: " << error.what();
  }
  // A rank that came back early may not begin the next world: its set-up has a deadline.
  MPI_Barrier(MPI_COMM_WORLD);
}

}  // namespace

std::vector<int> world_sizes() { return {mpi_size()}; }

void each_world(const RankBody& body, const MeshOptions& options, int at_least) {
  if (mpi_size() >= at_least) on_processes({.ring = mpi_size()}, body, options);
}

void on_mesh(MeshShape shape, const RankBody& body) {
  if (mpi_size() == shape.ring * shape.ulysses) on_processes(shape, body, {});
}

}  // namespace annulus::testing

int main(int argc, char** argv) {
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  ::testing::InitGoogleTest(&argc, argv);
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  if (rank != 0) {
    auto& listeners = ::testing::UnitTest::GetInstance()->listeners();
    delete listeners.Release(listeners.default_result_printer());
    listeners.Append(new annulus::testing::FailurePrinter(rank));
  }
  const int result = RUN_ALL_TESTS();
  MPI_Finalize();
  return result;
}
