// Plan options that no public option reaches yet (kernels that cannot resume, transports that must
// not touch the caller's tensors, slices): executed, against one rank.

#include "runtime/base/dtype.h"
#include "runtime/engine/bound_pass.h"
#include "tests/support/oracle.h"
#include "tests/support/run_ranks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace annulus::testing {
namespace {

/// One rank's f32 shards and outputs, compact.
struct Shards {
  std::vector<float> q, k, v, out, lse, dout, dq, dk, dv;
};

std::vector<float> shard_of(const std::vector<double>& full,
                            const std::vector<std::int64_t>& positions, std::int64_t row) {
  std::vector<float> local;
  for (const std::int64_t p : positions) {
    for (std::int64_t i = 0; i < row; ++i)
      local.push_back(static_cast<float>(full[static_cast<std::size_t>(p * row + i)]));
  }
  return local;
}

double worst(const std::vector<float>& local, const std::vector<double>& full,
             const std::vector<std::int64_t>& positions, std::int64_t row) {
  double error = 0.0;
  std::size_t n = 0;
  for (const std::int64_t p : positions) {
    for (std::int64_t i = 0; i < row; ++i) {
      const double d =
          std::abs(static_cast<double>(local[n++]) - full[static_cast<std::size_t>(p * row + i)]);
      error = std::isnan(d) ? 1e9 : std::max(error, d);
    }
  }
  return error;
}

/// The results of all ranks, by position: [seq, heads * dim], lse [seq, heads].
struct Whole {
  std::vector<float> out, lse, dq, dk, dv;

  explicit Whole(std::int64_t seq) {
    const auto tokens = static_cast<std::size_t>(seq);
    for (std::vector<float>* x : {&out, &dq}) x->assign(tokens * 32, std::nanf(""));
    for (std::vector<float>* x : {&dk, &dv}) x->assign(tokens * 16, std::nanf(""));
    lse.assign(tokens * 4, std::nanf(""));
  }
};

void collect(const Shards& s, const std::vector<std::int64_t>& positions, Whole& whole) {
  const auto tokens = positions.size();
  for (std::size_t t = 0; t < tokens; ++t) {
    const auto at = static_cast<std::size_t>(positions[t]);
    const auto place = [&](const std::vector<float>& from, std::vector<float>& to, std::size_t n) {
      for (std::size_t i = 0; i < n; ++i) to[at * n + i] = from[t * n + i];
    };
    place(s.out, whole.out, 32);
    place(s.dq, whole.dq, 32);
    place(s.dk, whole.dk, 16);
    place(s.dv, whole.dv, 16);
    for (std::size_t h = 0; h < 4; ++h) whole.lse[at * 4 + h] = s.lse[h * tokens + t];
  }
}

class PlanOptionsTest : public ::testing::TestWithParam<PlanOptions> {};

void run(Mesh& mesh, Algorithm algorithm, MeshShape shape, const PlanOptions& options,
         const OracleInputs& inputs, const OracleResult& truth, const Problem& p,
         Whole* whole = nullptr) {
  Session::Impl session;
  session.mesh = &mesh;
  session.own = std::make_unique<comm::PrivateArena>(16 << 20);
  session.arena = session.own->bytes();
  std::fill(session.arena.begin(), session.arena.end(), std::byte{0xff});  // NaN
  const auto bind = [&](Pass pass) {
    PlanRequest r{
        .problem = p, .algorithm = algorithm, .mesh = shape, .pass = pass, .options = options};
    Plan plan = make_plan(r);
    EXPECT_TRUE(check_plan(plan).empty());
    RankPlan rank = plan.rank(mesh.rank());
    return engine::make_host_pass(session, std::move(plan), std::move(rank),
                                  attn::find_kernel("flash2", {}));
  };
  auto forward = bind(Pass::forward);
  auto backward = bind(Pass::backward);
  const auto rows = forward->plan().sharding().positions(mesh.rank());
  const auto n = static_cast<std::int64_t>(rows.size());
  Shards s;
  s.q = shard_of(inputs.q, rows, 32);
  s.k = shard_of(inputs.k, rows, 16);
  s.v = shard_of(inputs.v, rows, 16);
  const float nan = std::nanf("");
  s.dout = shard_of(inputs.dout, rows, 32);
  s.out.assign(s.q.size() + 1, nan);
  s.lse.assign(static_cast<std::size_t>(n * 4 + 1), nan);
  s.dq = s.dk = s.dv = s.out;
  const auto q = [&](std::vector<float>& x) {
    return TensorView(x.data(), DType::f32, {1, n, 4, 8});
  };
  const auto kv = [&](std::vector<float>& x) {
    return TensorView(x.data(), DType::f32, {1, n, 2, 8});
  };
  for (engine::BoundPass* pass : {forward.get(), backward.get()}) {
    pass->set(Role::q, q(s.q));
    pass->set(Role::k, kv(s.k));
    pass->set(Role::v, kv(s.v));
    pass->set(Role::out, q(s.out));
    pass->set(Role::lse, TensorView(s.lse.data(), DType::f32, {1, 4, n}));
    pass->set(Role::dout, q(s.dout));
    pass->set(Role::dq, q(s.dq));
    pass->set(Role::dk, kv(s.dk));
    pass->set(Role::dv, kv(s.dv));
    pass->run(engine::RunMode::overlapped, nullptr);
  }
  EXPECT_LT(worst(s.out, truth.out, rows, 32), 1e-5);
  EXPECT_LT(worst(s.dq, truth.dq, rows, 32), 1e-5);
  EXPECT_LT(worst(s.dk, truth.dk, rows, 16), 1e-5);
  EXPECT_LT(worst(s.dv, truth.dv, rows, 16), 1e-5);
  if (whole != nullptr) collect(s, rows, *whole);
}

TEST_P(PlanOptionsTest, GiveTheSameResult) {
  const Problem p = resolved({.batch = 1, .seq = 45, .heads = 4, .heads_kv = 2, .head_dim = 8});
  const OracleInputs inputs = random_inputs(oracle_problem(p), 7);
  const OracleResult truth = oracle_attention(p, inputs);
  for (const auto& [algorithm, shape] : std::vector<std::pair<Algorithm, MeshShape>>{
           {Algorithm::ring, {.ring = 4}},
           {Algorithm::gather, {.ring = 3}},
           {Algorithm::ulysses, {.ring = 1, .ulysses = 3}},
           {Algorithm::hybrid, {.ring = 2, .ulysses = 2}}}) {
    run_ranks(shape,
              [&](Mesh& mesh) { run(mesh, algorithm, shape, GetParam(), inputs, truth, p); });
  }
}

/// Keys come in order of position and their tiles do not depend on who holds which.
TEST(GatherInPosition, GivesTheSameBitsForAnyNumberOfRanks) {
  const Problem p = resolved({.batch = 1, .seq = 197, .heads = 4, .heads_kv = 2, .head_dim = 8});
  const OracleInputs inputs = random_inputs(oracle_problem(p), 11);
  const OracleResult truth = oracle_attention(p, inputs);
  const PlanOptions options{.tile_q = 16, .tile_k = 32, .gather_launch = GatherLaunch::in_position};
  std::vector<Whole> results;
  for (const int world : {1, 2, 3, 4, 8}) {
    Whole& whole = results.emplace_back(197);
    const MeshShape shape{.ring = world};
    run_ranks(shape, [&](Mesh& mesh) {
      run(mesh, Algorithm::gather, shape, options, inputs, truth, p, &whole);
    });
    EXPECT_EQ(whole.out, results.front().out) << world << " ranks";
    EXPECT_EQ(whole.lse, results.front().lse) << world << " ranks";
  }
}

/// A head's result does not depend on the heads that it is launched with.
TEST(UlyssesSlices, GiveTheSameBits) {
  const Problem p = resolved({.batch = 1, .seq = 197, .heads = 4, .heads_kv = 2, .head_dim = 8});
  const OracleInputs inputs = random_inputs(oracle_problem(p), 13);
  const OracleResult truth = oracle_attention(p, inputs);
  for (const MeshShape shape : {MeshShape{.ring = 1, .ulysses = 2}, {.ring = 1, .ulysses = 3}}) {
    std::vector<Whole> results;
    for (const int slices : {1, 2}) {
      const PlanOptions options{.tile_q = 16, .tile_k = 32, .ulysses_slices = slices};
      Whole& whole = results.emplace_back(197);
      run_ranks(shape, [&](Mesh& mesh) {
        run(mesh, Algorithm::ulysses, shape, options, inputs, truth, p, &whole);
      });
      EXPECT_EQ(whole.out, results.front().out) << slices << " slices";
      EXPECT_EQ(whole.lse, results.front().lse) << slices << " slices";
      EXPECT_EQ(whole.dq, results.front().dq) << slices << " slices";
      EXPECT_EQ(whole.dk, results.front().dk) << slices << " slices";
      EXPECT_EQ(whole.dv, results.front().dv) << slices << " slices";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(
    Each, PlanOptionsTest,
    ::testing::Values(
        PlanOptions{.resume = false}, PlanOptions{.stage_caller = true},
        PlanOptions{.backward_moves = BackwardMoves::queries},
        PlanOptions{.stage_caller = true, .backward_moves = BackwardMoves::queries},
        PlanOptions{.ulysses_slices = 2}, PlanOptions{.ulysses_slices = 2, .stage_caller = true},
        PlanOptions{.gather_launch = GatherLaunch::on_arrival, .push_keys = true},
        PlanOptions{
            .gather_launch = GatherLaunch::on_arrival, .stage_caller = true, .push_keys = true},
        PlanOptions{.gather_slices = 1}, PlanOptions{.gather_launch = GatherLaunch::on_arrival},
        PlanOptions{.gather_launch = GatherLaunch::in_position, .stage_caller = true},
        PlanOptions{.outer = Algorithm::gather, .tile_q = 16, .tile_k = 32, .gather_slices = 2}));

}  // namespace
}  // namespace annulus::testing
