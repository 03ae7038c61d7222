// Test bodies on meshes made from an ncclComm_t and nothing else: no MPI, a process for each rank,
// forked here before anything of CUDA is used. ANNULUS_TEST_RANKS of them (2), a GPU each.
#include "comm/nccl/library.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <thread>

namespace annulus::testing {
namespace {

/// What the processes share: how a trainer hands an identifier round is its own affair.
struct Shared {
  ncclUniqueId id{};
  std::atomic<int> id_ready{0};
  std::atomic<int> arrived{0};
};

struct Place {
  Shared* shared = nullptr;
  int rank = 0;
  int size = 2;
  int barriers = 0;
  ncclComm_t comm = nullptr;
};
Place g_place;  ///< of this process

bool wait_for(const std::atomic<int>& value, int at_least) {
  for (const Deadline deadline(120); value < at_least;) {
    if (deadline.expired()) return false;
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
  return true;
}

/// Of all processes, through memory: a rank that came back early may not begin the next world.
void meet() {
  ++g_place.shared->arrived;
  if (wait_for(g_place.shared->arrived, ++g_place.barriers * g_place.size)) return;
  std::fprintf(stderr, "rank %d: others did not come\n", g_place.rank);
  _exit(4);
}

void on_processes(MeshShape shape, const RankBody& body, const MeshOptions& options) {
  try {
    Mesh mesh = Mesh::from_nccl(g_place.comm, shape, options);
    EXPECT_EQ(mesh.rank(), g_place.rank);
    EXPECT_EQ(mesh.world(), g_place.size);
    try {
      body(mesh);
    } catch (const std::exception& error) {
      ADD_FAILURE() << "rank " << mesh.rank() << ": " << error.what();
      mesh.impl().communicator->report_failure(error.what());
    }
  } catch (const std::exception& error) {
    ADD_FAILURE() << "mesh set-up: " << error.what();
  }
  meet();
}

/// The trainer's communicator.
ncclComm_t make_communicator() {
  const comm::nccl::Library& nccl = comm::nccl::Library::get();
  Shared& shared = *g_place.shared;
  if (g_place.rank == 0) {
    comm::nccl::check(nccl.get_unique_id(&shared.id), "ncclGetUniqueId");
    shared.id_ready = 1;
  }
  if (!wait_for(shared.id_ready, 1)) return nullptr;
  check_cuda(cudaSetDevice(g_place.rank), "cudaSetDevice");
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  ncclComm_t made = nullptr;
  comm::nccl::check(nccl.init_rank(&made, g_place.size, shared.id, g_place.rank, &config),
                    "ncclCommInitRankConfig");
  return made;
}

int run_rank(int argc, char** argv) {
  int gpus = 0;
  if (cudaGetDeviceCount(&gpus) != cudaSuccess || gpus < g_place.size) {
    if (g_place.rank == 0) std::printf("skipped: %d GPUs are wanted\n", g_place.size);
    return 77;
  }
  try {
    g_place.comm = make_communicator();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", g_place.rank, error.what());
  }
  if (g_place.comm == nullptr) return 3;
  ::testing::InitGoogleTest(&argc, argv);
  const int result = RUN_ALL_TESTS();
  // The caller's communicator stands after all those meshes.
  int size = 0;
  const comm::nccl::Library& nccl = comm::nccl::Library::get();
  if (nccl.count(g_place.comm, &size) != ncclSuccess || size != g_place.size) return 5;
  meet();
  return nccl.destroy(g_place.comm) == ncclSuccess ? result : 6;
}

}  // namespace

std::vector<int> world_sizes() { return {g_place.size}; }

void each_world(const RankBody& body, const MeshOptions& options, int at_least) {
  if (g_place.size >= at_least) on_processes({.ring = g_place.size}, body, options);
}

void on_mesh(MeshShape shape, const RankBody& body) {
  if (g_place.size == shape.world()) on_processes(shape, body, {});
}

}  // namespace annulus::testing

int main(int argc, char** argv) {
  using annulus::testing::g_place;
  using annulus::testing::Shared;
  if (const char* ranks = std::getenv("ANNULUS_TEST_RANKS")) g_place.size = std::atoi(ranks);
  void* memory =
      mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED || g_place.size < 1) return 2;
  g_place.shared = new (memory) Shared;
  for (int rank = 0; rank < g_place.size; ++rank) {
    g_place.rank = rank;
    const pid_t child = fork();
    if (child < 0) return 2;
    if (child == 0) {
      const int result = annulus::testing::run_rank(argc, argv);
      std::fflush(nullptr);
      _exit(result);
    }
  }
  int worst = 0;
  for (int rank = 0; rank < g_place.size; ++rank) {
    int status = 0;
    if (wait(&status) < 0) return 2;
    const int result = WIFEXITED(status) ? WEXITSTATUS(status) : 9;
    if (result > worst) worst = result;
  }
  return worst;
}
