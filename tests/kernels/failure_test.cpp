// What a launch does when poll throws or when it was given what it cannot use.
#include "attention/kernels/dispatch.h"
#include "tests/kernels/kernel_checks.h"

#include <annulus/error.h>

#include <string>

namespace annulus::testing {
namespace {

using attn::Kernel;

OracleProblem problem_of() {
  return {.batch = 2,
          .seq = 145,
          .seq_kv = 145,
          .heads = 4,
          .heads_kv = 2,
          .head_dim = 24,
          .head_dim_v = 40,
          .dtype = DType::f32,
          .terms = {Mask::Causal{}},
          .softmax_scale = 0.2};
}

attn::LaunchContext context_of(std::vector<std::byte>& workspace, int threads) {
  return {threads, {}, nullptr, workspace};
}

class Throwing : public ::testing::TestWithParam<std::string> {};

TEST_P(Throwing, PassesOnWhatPollThrowsAndStopsItsThreads) {
  const Kernel& kernel = attn::find_kernel(GetParam(), {});
  const OracleProblem problem = problem_of();
  TestTensor q(DType::f32, 2, 145, 4, 40, 0), lse(DType::f32, 2, 145, 4, 1, 0);
  const TestLaunch launch = make_launch(problem, one_segment(problem));
  const attn::ForwardParams params{.geometry = launch.geometry(),
                                   .q = q.input(),
                                   .k = q.input(),
                                   .v = q.input(),
                                   .out = q.output(),
                                   .lse = lse.output(),
                                   .state = {}};
  for (const int threads : {1, 2}) {
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(kernel.workspace_bytes(params.geometry, false, threads)));
    attn::LaunchContext context = context_of(workspace, threads);
    context.poll = [] { throw Timeout("no answer"); };
    // The calling thread polls; on a loaded machine the other one may have done all by then.
    bool thrown = false;
    for (int call = 0; call < (threads == 1 ? 1 : 100) && !thrown; ++call) {
      try {
        kernel.forward(params, context);
      } catch (const Timeout&) {
        thrown = true;
      }
    }
    EXPECT_TRUE(thrown) << threads << " threads";
  }
}

TEST_P(Throwing, PassesOnWhatPollThrowsWhileOthersWaitForTheirTurn) {
  const Kernel& kernel = attn::find_kernel(GetParam(), {});
  OracleProblem problem = problem_of();
  problem.batch = 1;
  problem.heads = problem.heads_kv = 1;
  problem.head_dim_v = problem.head_dim;
  problem.seq = problem.seq_kv = 1000;
  TestTensor q(DType::f32, 1, 1000, 1, 24, 0), lse(DType::f32, 1, 1000, 1, 1, 0),
      d(DType::f32, 1, 1000, 1, 24, 0);
  const TestLaunch launch = make_launch(problem, one_segment(problem));
  const attn::BackwardParams params{.geometry = launch.geometry(),
                                    .q = q.input(),
                                    .k = q.input(),
                                    .v = q.input(),
                                    .dout = q.input(),
                                    .lse = lse.input(),
                                    .delta = lse.input(),
                                    .dq = d.output(),
                                    .dk = d.output(),
                                    .dv = d.output()};
  for (const std::int64_t calls : {0, 1, 20}) {
    std::vector<std::byte> workspace(
        static_cast<std::size_t>(kernel.workspace_bytes(params.geometry, true, 3)));
    attn::LaunchContext context = context_of(workspace, 3);
    std::int64_t polls = 0;
    context.poll = [&] {
      if (polls++ == calls) throw Timeout("no answer");
    };
    try {
      kernel.backward(params, context);
      EXPECT_LE(polls, calls);  // the other threads were faster
    } catch (const Timeout&) {
      EXPECT_EQ(polls, calls + 1);
    }
  }
}

TEST_P(Throwing, RefusesASmallWorkspaceAndTilesThatOverlapOrAreNotSorted) {
  const Kernel& kernel = attn::find_kernel(GetParam(), {});
  const OracleProblem problem = problem_of();
  TestLaunch launch = make_launch(problem, one_segment(problem));
  attn::ForwardParams params{
      .geometry = launch.geometry(), .q = {}, .k = {}, .v = {}, .out = {}, .lse = {}, .state = {}};
  const std::int64_t bytes = kernel.workspace_bytes(params.geometry, false, 1);
  std::vector<std::byte> workspace(static_cast<std::size_t>(bytes));
  EXPECT_THROW(kernel.forward(params, context_of(workspace, 2)), InvalidArgument);
  launch.tiles.back().row = 60;  // inside the rows of the first
  params.geometry = launch.geometry();
  EXPECT_THROW(kernel.forward(params, context_of(workspace, 1)), InvalidArgument);
  launch = make_launch(problem, one_segment(problem), {145, 32});
  std::swap(launch.tiles[0], launch.tiles[2]);
  params.geometry = launch.geometry();
  EXPECT_THROW(kernel.forward(params, context_of(workspace, 1)), InvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Kernels, Throwing, ::testing::Values("flash2", "flash1", "naive"));

}  // namespace
}  // namespace annulus::testing
