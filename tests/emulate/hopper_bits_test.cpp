// `gather` with keys in order of position, the emulated Hopper forward as its kernel: out and lse
// have the same bits on any number of ranks. Plans, lists and exchanged keys are those of ranks.
#include "runtime/base/dtype.h"
#include "runtime/engine/bound_pass.h"
#include "tests/emulate/forward.h"
#include "tests/gpu/shares.h"
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
  const auto keys = pass->plan().sharding().positions_kv(mesh.rank());
  auto k = shard_of(inputs.k, keys, *p.heads_kv * p.head_dim);
  auto v = shard_of(inputs.v, keys, *p.heads_kv * *p.head_dim_v);
  std::vector<std::uint16_t> out(static_cast<std::size_t>(n * whole.row), 0xffff);
  std::vector<float> lse(static_cast<std::size_t>(n * p.heads), std::nanf(""));
  const auto view = [&](std::vector<std::uint16_t>& x, std::int64_t heads, std::int64_t dim) {
    const auto tokens = static_cast<std::int64_t>(x.size()) / (heads * dim);
    return TensorView(x.data(), DType::bf16, {1, tokens, heads, dim});
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

/// On the given number of ranks. `sms`: of each one's device.
Whole run(const Problem& p, int world, GatherLaunch launch, int sms = 3) {
  const attn::Kernel& kernel = emulated_hopper({.sms = sms, .deterministic = true});
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

/// Out and lse are within their bounds of the oracle.
void expect_right(const Problem& p, const Whole& whole) {
  const OracleProblem problem = oracle_problem(p);
  const OracleInputs inputs = random_inputs(problem, 7);
  OracleResult truth = oracle_attention(problem, inputs);
  OracleResult naive = naive_attention(problem, inputs);
  OracleResult actual;
  for (const std::uint16_t x : whole.out) actual.out.push_back(bf16_to_f32(x));
  actual.lse.assign(whole.lse.begin(), whole.lse.end());
  for (OracleResult* r : {&truth, &naive}) {
    for (auto* gradient : {&r->dq, &r->dk, &r->dv}) gradient->clear();
  }
  EXPECT_LE(shares_of(actual, truth, naive).worst(), 1.0);
}

/// Launches of few rows and many keys: split so on any number of ranks and any device, with the
/// same bits. `group`: query heads that one rank's launches pack.
void expect_split(const Problem& problem, const std::vector<int>& worlds, int parts,
                  std::int64_t keys, int group, GatherLaunch launch = GatherLaunch::in_position) {
  const Problem p = resolved(problem);
  SCOPED_TRACE(fmt::format("{}, {} rows of {}:{} heads, {} keys, head dim {}", p.mask.name(), p.seq,
                           p.heads, *p.heads_kv, *p.seq_kv, p.head_dim));
  const Whole one = run(p, 1, launch, 1);
  EXPECT_EQ(emulated_split(), (attn::sm90::Split{parts, group, keys}));
  expect_right(p, one);
  for (const int world : worlds) {
    const Whole whole = run(p, world, launch, 2 + world);
    EXPECT_EQ(emulated_split().parts, parts) << world << " ranks";
    EXPECT_EQ(emulated_split().keys, keys) << world << " ranks";
    EXPECT_EQ(rows_that_differ(whole, one), "") << world << " ranks";
  }
}

void expect_same_bits(const Problem& problem, const std::vector<int>& worlds) {
  const Problem p = resolved(problem);
  const Whole one = run(p, 1, GatherLaunch::in_position);
  EXPECT_EQ(emulated_split(), attn::sm90::Split{});
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

Problem decode_of(std::int64_t rows, std::int64_t keys, std::int64_t heads, std::int64_t heads_kv,
                  Mask mask = Mask::causal()) {
  Problem p = problem_of(rows, 128, std::move(mask));
  p.seq_kv = keys;
  p.heads = heads;
  p.heads_kv = heads_kv;
  return p;
}

TEST(EmulatedHopperBits, DecodeIsSplitAlikeOnAnyNumberOfRanks) {
  // Parts of four steps of 128 keys. Ranks without a row launch nothing.
  expect_split(decode_of(1, 2000, 4, 1), {2, 3}, 4, 512, 4);
  expect_split(decode_of(5, 1409, 4, 2), {2, 3, 4, 8}, 3, 512, 2);
  expect_split(decode_of(3, 1999, 2, 2), {2, 4}, 4, 512, 1);
  expect_split(decode_of(2, 1537, 6, 2, Mask::full()), {2}, 4, 512, 3);
}

/// Too few keys: whole.
TEST(EmulatedHopperBits, DecodeOfFewKeys) {
  for (const std::int64_t rows : {1, 5}) {
    expect_same_bits(decode_of(rows, 300, 4, 1), {2, 3, 4});
    expect_same_bits(decode_of(rows, 700, 4, 2), {2, 3, 4});
  }
}

/// Ranks hold keys of their rows alone, and some no key of some parts.
TEST(EmulatedHopperBits, SplitWindows) {
  expect_split(decode_of(5, 2000, 2, 1, Mask::window(600)), {2, 3, 4}, 4, 512, 2);
  expect_split(decode_of(150, 1900, 2, 1, Mask::window(190)), {2, 3, 4}, 4, 512, 1);
  expect_split(decode_of(150, 1900, 1, 1), {2, 8}, 4, 512, 1);
}

/// A row is its own query tile's on one rank, and shares it with others elsewhere; causal rows from
/// the first key on, so that rows see nothing of most parts.
TEST(EmulatedHopperBits, SplitSquares) {
  expect_split(decode_of(1450, 1450, 1, 1), {3, 4}, 3, 512, 1);
}

/// One launch a slice of heads.
TEST(EmulatedHopperBits, SplitSlices) {
  expect_split(decode_of(5, 1409, 4, 2), {2, 3}, 3, 512, 2, GatherLaunch::slices);
}

TEST(EmulatedHopperBits, SplitOtherHeadDims) {
  const struct {
    std::int64_t dim;
    int parts;
    std::int64_t keys;
  } cases[] = {{64, 3, 512}, {96, 4, 384}, {192, 4, 448}, {256, 5, 320}};
  for (const auto& c : cases) {
    Problem p = decode_of(3, 1450, 2, 1);
    p.head_dim = c.dim;
    p.head_dim_v = c.dim;
    expect_split(p, {2, 3}, c.parts, c.keys, 2);
  }
}

}  // namespace
}  // namespace annulus::testing
