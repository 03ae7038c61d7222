// `gather` with keys in order of position, the emulated Hopper forward as its kernel: out and lse
// have the same bits on any number of ranks. Plans, lists and exchanged keys are those of ranks.
#include "runtime/base/dtype.h"
#include "runtime/engine/bound_pass.h"
#include "tests/emulate/forward.h"
#include "tests/support/oracle.h"
#include "tests/support/run_ranks.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

/// By position: out as [seq, heads * dim_v] in 16 bits, lse as [heads, seq].
struct Whole {
  std::vector<std::uint16_t> out;
  std::vector<float> lse;
  std::int64_t row = 0, seq = 0;

  explicit Whole(const Problem& p) : row(p.heads * *p.head_dim_v), seq(p.seq) {
    out.assign(static_cast<std::size_t>(seq * row), 0xffff);
    lse.assign(static_cast<std::size_t>(seq * p.heads), std::nanf(""));
  }
};

/// Positions whose bits are not those of `one`.
std::string rows_that_differ(const Whole& whole, const Whole& one) {
  std::string names;
  for (std::int64_t i = 0; i < one.seq; ++i) {
    const auto first = static_cast<std::size_t>(i * one.row);
    const bool out =
        std::memcmp(&whole.out[first], &one.out[first], static_cast<std::size_t>(one.row) * 2) != 0;
    bool lse = false;
    for (std::size_t at = static_cast<std::size_t>(i); at < one.lse.size();
         at += static_cast<std::size_t>(one.seq)) {
      lse = lse || std::memcmp(&whole.lse[at], &one.lse[at], 4) != 0;
    }
    if (out || lse) names += fmt::format(" {}{}{}", i, out ? "o" : "", lse ? "l" : "");
  }
  return names;
}

/// The rank's rows of a tensor, as the kernel reads them.
std::vector<std::uint16_t> shard_of(const std::vector<double>& full,
                                    const std::vector<std::int64_t>& positions, std::int64_t row) {
  std::vector<std::uint16_t> local(positions.size() * static_cast<std::size_t>(row));
  std::size_t n = 0;
  for (const std::int64_t p : positions) {
    for (std::int64_t i = 0; i < row; ++i) {
      local[n++] = f32_to_bf16(static_cast<float>(full[static_cast<std::size_t>(p * row + i)]));
    }
  }
  return local;
}

void run_rank(Mesh& mesh, const PlanRequest& request, const attn::Kernel& kernel,
              const OracleInputs& inputs, Whole& whole) {
  Session::Impl session;
  session.mesh = &mesh;
  session.own = std::make_unique<comm::PrivateArena>(std::int64_t{32} << 20);
  session.arena = session.own->bytes();
  std::fill(session.arena.begin(), session.arena.end(), std::byte{0xff});  // NaN
  Plan plan = make_plan(request);
  EXPECT_TRUE(check_plan(plan).empty());
  RankPlan rank = plan.rank(mesh.rank());
  auto pass = engine::make_host_pass(session, std::move(plan), std::move(rank), kernel);
  const Problem& p = request.problem;
  const auto rows = pass->plan().sharding().positions(mesh.rank());
  const auto n = static_cast<std::int64_t>(rows.size());
  auto q = shard_of(inputs.q, rows, p.heads * p.head_dim);
  auto k = shard_of(inputs.k, rows, *p.heads_kv * p.head_dim);
  auto v = shard_of(inputs.v, rows, *p.heads_kv * *p.head_dim_v);
  std::vector<std::uint16_t> out(static_cast<std::size_t>(n * whole.row), 0xffff);
  std::vector<float> lse(static_cast<std::size_t>(n * p.heads), std::nanf(""));
  const auto view = [&](std::vector<std::uint16_t>& x, std::int64_t heads, std::int64_t dim) {
    return TensorView(x.data(), DType::bf16, {1, n, heads, dim});
  };
  pass->set(Role::q, view(q, p.heads, p.head_dim));
  pass->set(Role::k, view(k, *p.heads_kv, p.head_dim));
  pass->set(Role::v, view(v, *p.heads_kv, *p.head_dim_v));
  pass->set(Role::out, view(out, p.heads, *p.head_dim_v));
  pass->set(Role::lse, TensorView(lse.data(), DType::f32, {1, p.heads, n}));
  pass->run(engine::RunMode::overlapped, nullptr);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    std::memcpy(&whole.out[static_cast<std::size_t>(rows[i] * whole.row)],
                &out[i * static_cast<std::size_t>(whole.row)],
                static_cast<std::size_t>(whole.row) * 2);
    for (std::int64_t h = 0; h < p.heads; ++h) {
      whole.lse[static_cast<std::size_t>(h * whole.seq + rows[i])] =
          lse[static_cast<std::size_t>(h * n) + i];
    }
  }
}

/// On the given number of ranks.
Whole run(const Problem& p, int world, GatherLaunch launch) {
  // Nothing is split, as where a launch is told to be deterministic.
  const attn::Kernel& kernel = emulated_hopper({.sms = 3, .split = attn::sm90::Split{}});
  const attn::TileLimits tiles = attn::tiles_for(
      kernel,
      {.dtype = p.dtype, .head_dim = p.head_dim, .head_dim_v = *p.head_dim_v, .keys = p.seq});
  const PlanRequest request{.problem = p,
                            .algorithm = Algorithm::gather,
                            .mesh = {.ring = world},
                            .options = {.tile_q = tiles.rows,
                                        .tile_k = tiles.keys,
                                        .gather_launch = launch,
                                        .stage_caller = true,
                                        .keys_on_grid = true}};
  Whole whole(p);
  const OracleInputs inputs = random_inputs(oracle_problem(p), 7);
  run_ranks({.ring = world}, [&](Mesh& mesh) { run_rank(mesh, request, kernel, inputs, whole); });
  return whole;
}

void expect_same_bits(const Problem& problem, const std::vector<int>& worlds) {
  const Problem p = resolved(problem);
  const Whole one = run(p, 1, GatherLaunch::in_position);
  for (const int world : worlds) {
    EXPECT_EQ(rows_that_differ(run(p, world, GatherLaunch::in_position), one), "")
        << world << " ranks, " << p.mask.name() << ", " << p.seq << " tokens, head dim "
        << p.head_dim;
  }
}

Problem problem_of(std::int64_t seq, std::int64_t dim, Mask mask) {
  return {.batch = 1,
          .seq = seq,
          .heads = 2,
          .heads_kv = 1,
          .head_dim = dim,
          .dtype = DType::bf16,
          .mask = std::move(mask)};
}

TEST(EmulatedHopperBits, CausalOnAnyNumberOfRanks) {
  for (const std::int64_t seq : {301, 512, 645}) {
    expect_same_bits(problem_of(seq, 128, Mask::causal()), {2, 3, 4, 8});
  }
}

TEST(EmulatedHopperBits, FullOnAnyNumberOfRanks) {
  for (const std::int64_t seq : {301, 512}) {
    expect_same_bits(problem_of(seq, 128, Mask::full()), {2, 8});
  }
}

TEST(EmulatedHopperBits, WindowOnAnyNumberOfRanks) {
  for (const std::int64_t seq : {301, 645}) {
    expect_same_bits(problem_of(seq, 128, Mask::window(90)), {2, 3, 4, 8});
  }
}

TEST(EmulatedHopperBits, OtherHeadDims) {
  for (const std::int64_t dim : {64, 96, 192, 256}) {
    expect_same_bits(problem_of(301, dim, Mask::causal()), {3, 4});
  }
}

}  // namespace
}  // namespace annulus::testing
