// Not a check: `comm_local --gtest_also_run_disabled_tests --gtest_filter='*Rate*'`, and the same
// of comm_mpi under mpirun, print what docs and reports quote.
#include "runtime/base/clock.h"
#include "tests/comm/transfers.h"
#include "tests/support/each_world.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>

namespace annulus::testing {
namespace {

/// Seconds of the fastest of some transfers from rank 0 to rank 1, as rank 1 sees it.
double best_time(Mesh& mesh, const comm::Region& region) {
  double best = 1e9;
  for (int trial = 0; trial < 12 && mesh.rank() < 2; ++trial) {
    Transfers transfers(mesh);
    // An empty message back says that the receive is posted and both start together.
    std::byte go{};
    const comm::Region signal{.base = &go, .run = 1};
    const Deadline clock(100.0);
    if (mesh.rank() == 0) {
      transfers.receive(1, 1, signal);
      transfers.wait();
      transfers.send(1, 0, region);
    } else {
      transfers.receive(0, 0, region);
      transfers.send(0, 1, signal);
    }
    transfers.wait();
    best = std::min(best, clock.elapsed_s());
  }
  return best;
}

TEST(Rate, DISABLED_OfALargeRegionAndOfAPoll) {
  each_world(
      [](Mesh& mesh) {
        Buffer buffer = pattern(mesh.rank(), 0, 0, std::int64_t{64} << 20);
        const double dense_s = best_time(mesh, dense(buffer));
        // Half of each 512-byte row: a head slice.
        const double strided_s = best_time(mesh, {.base = buffer.data(),
                                                  .count = {1, 1, (64 << 20) / 512},
                                                  .stride = {0, 0, 512},
                                                  .run = 256});
        const double small_s = best_time(mesh, {.base = buffer.data(), .run = 8});
        constexpr int kPolls = 1000;
        const Deadline polls(100.0);
        for (int i = 0; i < kPolls; ++i) mesh.impl().communicator->transport().progress();
        const double poll_s = polls.elapsed_s() / kPolls;
        if (mesh.rank() != 1) return;
        std::printf(
            "%s, world %d: 64 MiB dense %.1f GB/s, 32 MiB strided %.1f GB/s, 8 B round trip"
            " %.1f us, idle poll %.2f us\n",
            mesh.transport().c_str(), mesh.world(), 67.108864e-3 / dense_s,
            33.554432e-3 / strided_s, small_s * 1e6, poll_s * 1e6);
      },
      {}, 2);
}

}  // namespace
}  // namespace annulus::testing
