#include "tests/engine/check.h"

#include "tests/support/each_world.h"
#include "tests/support/rounding_sizes.h"

#include <gtest/gtest.h>

#include <cmath>
#include <optional>
#include <tuple>

namespace annulus::testing {
namespace {

/// A state that passes through `world` launches is rounded to f32 as often, LSE and O, and so are
/// sums of gradients: on shapes this small that is as much as all other error of one rank in f32.
/// Next to f16 and bf16 it is nothing. GPU kernels take ex2.approx, whose own error is up to two
/// units in the last place (CUDA's table), where the CPU's exp stays within one.
double state_rounding(int world) {
  return (4 + world) * (test_place().backend == "cuda" ? 0x1p-23 : 0x1p-24);
}

/// Tensor cores take P in the input dtype, rounded against the running maximum, which is another
/// one where keys come in another order: so errors are others. The largest of them is one of a few:
/// in a row of two or three keys an error of P is one of the whole row's output, of its delta and
/// of its gradients. The ratio of two such maxima is chance (docs/notes/01, "How exact many ranks
/// are": 1.4 to 3.7 times in one seed of ten to a hundred), so it is no measure there.
bool rounds_p(DType dtype) { return test_place().backend == "cuda" && dtype != DType::f32; }

/// What no element's error may exceed, in units of what rounding does to it (rounding_sizes.h): it
/// does so in one of 2e10 at most; in 5e8 simulated ones 3.7 was the largest.
constexpr double kMostSizes = 7.0;

/// All but algorithm and layout, of which one rank knows nothing. Every field has a name here, so
/// that one more does not compile unseen.
auto on_one_rank(const RunOptions& options) {
  const auto& [algorithm, layout, outer, kernel, threads, blocking, pad, deterministic, slices,
               arena, calls, moves] = options;
  return std::tie(outer, kernel, threads, blocking, pad, deterministic, slices, arena, calls,
                  moves);
}

/// What one problem's runs are held against.
class Expectation {
 public:
  Expectation(const Problem& problem, std::vector<RunOptions> runs, std::uint64_t seed)
      : problem_(problem),
        runs_(std::move(runs)),
        seed_(seed),
        inputs_(random_inputs(oracle_problem(problem), seed)),
        truth_(oracle_attention(problem, inputs_)) {
    if (inputs_.dout.empty()) {  // no queries: the oracle takes it for a forward alone
      truth_.dk.assign(inputs_.k.size(), 0.0);
      truth_.dv.assign(inputs_.v.size(), 0.0);
    }
    if (problem.dtype != DType::f32) {
      sizes_ = rounding_sizes(oracle_problem(problem), inputs_, truth_);
    }
    for (std::size_t i = 0; i < runs_.size(); ++i) single_.push_back(single_rank(i));
  }

  void compare(Mesh& mesh) const {
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      const RankResult result = run_rank(mesh, problem_, inputs_, runs_[i]);
      const Sharding sharding = solve_layout(runs_[i].layout, problem_, mesh.world());
      expect(i, mesh.world(), errors_of(mesh, problem_, sharding, result, truth_, sizes()));
    }
  }

 private:
  const OracleResult* sizes() const { return sizes_ ? &*sizes_ : nullptr; }

  /// Runs that are the same on one rank are run once there.
  Errors single_rank(std::size_t i) const {
    for (std::size_t before = 0; before < i; ++before) {
      if (on_one_rank(runs_[before]) == on_one_rank(runs_[i])) return single_[before];
    }
    RunOptions options = runs_[i];
    options.algorithm = Algorithm::ring;
    options.layout = Layout::contiguous();
    Mesh alone = Mesh::single();
    const RankResult result = run_rank(alone, problem_, inputs_, options);
    const Errors errors = errors_of(alone, problem_, solve_layout(options.layout, problem_, 1),
                                    result, truth_, sizes());
    expect_numbers(errors, options);
    return errors;
  }

  /// Next to an infinite error of one rank, every error of many would be small.
  void expect_numbers(const Errors& single, const RunOptions& options) const {
    for (const ResultError* e : {&single.out, &single.lse, &single.dq, &single.dk, &single.dv}) {
      EXPECT_TRUE(std::isfinite(e->largest)) << "a NaN of " << describe(problem_, options, 1);
    }
  }

  void expect(std::size_t i, int world, const Errors& e) const {
    const std::string what = describe(problem_, runs_[i], world) + " seed " + std::to_string(seed_);
    const auto near = [&](const char* name, const ResultError& error, const ResultError& single,
                          bool largest) {
      EXPECT_LE(error.rms, 1.1 * single.rms + state_rounding(world))
          << "mean squares of " << name << " of " << what << ", single rank " << single.rms;
      EXPECT_LE(error.rms_sizes, 1.1 * single.rms_sizes)
          << "mean squares in sizes of roundings of " << name << " of " << what;
      EXPECT_LE(error.most_sizes, kMostSizes) << "in sizes of roundings: " << name << " of " << what
                                              << ", single rank " << single.most_sizes;
      if (!largest) return;
      EXPECT_LE(error.largest, 1.1 * single.largest + state_rounding(world))
          << name << " of " << what << ", single rank " << single.largest;
    };
    const bool largest = !rounds_p(problem_.dtype);
    near("out", e.out, single_[i].out, largest);
    near("lse", e.lse, single_[i].lse, true);
    near("dq", e.dq, single_[i].dq, largest);
    near("dk", e.dk, single_[i].dk, largest);
    near("dv", e.dv, single_[i].dv, largest);
  }

  Problem problem_;
  std::vector<RunOptions> runs_;
  std::uint64_t seed_;
  OracleInputs inputs_;
  OracleResult truth_;
  std::optional<OracleResult> sizes_;  ///< of 16-bit types
  std::vector<Errors> single_;
};

}  // namespace

void check(const Problem& problem, const std::vector<RunOptions>& runs, std::uint64_t seed) {
  const Expectation expectation(problem, runs, seed);
  each_world([&](Mesh& mesh) { expectation.compare(mesh); });
}

void check_on(MeshShape shape, const Problem& problem, const std::vector<RunOptions>& runs,
              std::uint64_t seed) {
  const Expectation expectation(problem, runs, seed);
  on_mesh(shape, [&](Mesh& mesh) { expectation.compare(mesh); });
}

std::vector<RunOptions> every_algorithm() {
  std::vector<RunOptions> runs;
  for (const Algorithm a : {Algorithm::ring, Algorithm::gather, Algorithm::ulysses}) {
    for (const Layout& layout :
         {Layout::contiguous(), Layout::zigzag(), Layout::striped(), Layout::balanced()}) {
      runs.push_back({.algorithm = a, .layout = layout});
    }
  }
  return runs;
}

std::vector<Mask> every_mask(std::int64_t seq) {
  const std::int64_t half = seq / 2;
  const std::int64_t third = seq / 3;
  std::vector<RowIntervals> rows;      // every third row sees nothing, others two intervals
  std::vector<std::int64_t> segments;  // two that take turns, and tokens of none
  std::vector<std::uint8_t> pairs;     // five of seven
  for (std::int64_t i = 0; i < seq; ++i) {
    rows.push_back(i % 3 == 0 ? RowIntervals{}
                              : RowIntervals{KeyInterval{i / 4, i / 2},
                                             KeyInterval{i / 2 + 3, i / 2 + 3 + third}});
    segments.push_back(i % 29 == 28 ? -1 : i / (seq / 5) % 2);
    for (std::int64_t j = 0; j < seq; ++j) pairs.push_back((3 * i + 5 * j + i * j) % 7 < 5 ? 1 : 0);
  }
  return {Mask::full(),
          Mask::causal(CausalAlign::top_left),
          Mask::window(seq / 8, seq / 30),
          Mask::documents({0, 1, third, 0, half, seq - third - half - 1}),
          Mask::documents({half, seq - half}, false),
          Mask::prefix(third - 3),
          Mask::rows(rows),
          Mask::dense(pairs, seq),
          Mask::segments(segments),
          Mask::causal() & Mask::segments(segments),
          Mask::documents({seq - half, half}) & Mask::window(seq / 12),
          Mask::prefix(seq / 7) & Mask::window(seq / 5, seq / 20)};
}

}  // namespace annulus::testing
