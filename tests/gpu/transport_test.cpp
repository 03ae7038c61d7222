// Which transport `auto` takes for a topology, what it says, and that it moves what it should.
// Hosts are pretended (ANNULUS_TEST_RANKS_PER_HOST), so ranks are processes; where GPUs are fewer,
// they share them.

#include "comm/nccl/nccl_communicator.h"
#include "tests/engine/distributed.h"
#include "tests/support/each_world.h"

#include <annulus/annulus.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <string>

namespace annulus::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

struct Expected {
  std::string transport;
  std::string reason;
  std::string gap;  ///< the pair of ranks that the reason names
};

Expected expected(int ranks_per_host, int world) {
  if (ranks_per_host == 0 || ranks_per_host >= world) {
    return {"peer", "every rank's GPU can be addressed", ""};
  }
  const std::string gap = "rank " + std::to_string(ranks_per_host) + " is out of rank 0's reach: ";
  if (ranks_per_host == 1) return {"nccl", "no rank's GPU can address another: ", gap};
  return {"composite", "some ranks' GPUs can address each other, others not: ", gap};
}

/// Error of a result over what one rank in f32 may have.
constexpr double kBound = 2e-5;

TEST(OnGpuTransport, AutoFollowsTopologyAndSaysWhatAndWhy) {
  if (device_count() == 0) GTEST_SKIP() << "no GPU";
  const TestPlace place = test_place();
  if (place.ranks_per_host > 0) {
    if (std::getenv("OMPI_COMM_WORLD_SIZE") == nullptr) GTEST_SKIP() << "hosts are of processes";
    if (const std::string why = comm::nccl::why_not(); !why.empty()) GTEST_SKIP() << why;
  }
  const Problem p = resolved({.batch = 1, .seq = 203, .heads = 4, .heads_kv = 2, .head_dim = 32});
  const OracleInputs inputs = random_inputs(oracle_problem(p), 31);
  const OracleResult truth = oracle_attention(p, inputs);
  each_world(
      [&](Mesh& mesh) {
        const Expected want = expected(place.ranks_per_host, mesh.world());
        {
          const Session session(mesh, {.max_problem = p,
                                       .algorithm = Algorithm::ring,
                                       .backend = "cuda",
                                       .ranks_per_host = place.ranks_per_host});
          EXPECT_EQ(session.transport(), want.transport);
          EXPECT_THAT(session.transport_reason(),
                      AllOf(HasSubstr(want.reason), HasSubstr(want.gap)));
          if (mesh.rank() == 0) {
            std::printf("auto: %s: %s\n", session.transport().c_str(),
                        session.transport_reason().c_str());
          }
          // What was asked for is not argued about.
          if (want.transport != "peer") {
            EXPECT_THROW(Session(mesh, {.max_problem = p,
                                        .backend = "cuda",
                                        .transport = "peer",
                                        .ranks_per_host = place.ranks_per_host}),
                         Unsupported);
          }
        }
        for (const Algorithm algorithm : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
          const RunOptions options{.algorithm = algorithm, .calls = 2};
          const RankResult result = run_rank(mesh, p, inputs, options);
          const Errors e =
              errors_of(mesh, p, solve_layout(options.layout, p, mesh.world()), result, truth);
          for (const ResultError& error : {e.out, e.lse, e.dq, e.dk, e.dv}) {
            EXPECT_LE(error.largest, kBound) << describe(p, options, mesh.world());
          }
        }
      },
      {}, 2);
}

}  // namespace
}  // namespace annulus::testing
