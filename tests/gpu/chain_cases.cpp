#include "tests/gpu/chain_cases.h"

#include "attention/kernels/cuda/table.h"
#include "tests/gpu/device_kernel.h"
#include "tests/gpu/device_oracle.h"
#include "tests/gpu/dims_cases.h"
#include "tests/gpu/shares.h"
#include "tests/support/shuffled_chain.h"

#include <cstdio>
#include <exception>
#include <utility>

namespace annulus::testing {
namespace {

using attn::Kernel;

constexpr int kSeeds = 9;      // each mask with unseen keys in each place
constexpr double kMost = 1.1;  // of one launch's root mean square
constexpr std::int64_t kRows = 300;

struct Runs {
  const Kernel& kernel;
  const OracleInputs& inputs;
  RunOptions options;

  OracleResult values(const std::vector<TestLaunch>& chain, bool deterministic) const {
    return run_kernel(on_device(kernel, deterministic), chain, inputs, options).values;
  }
};

void keep_forward(OracleResult& r) {
  for (auto* gradient : {&r.dq, &r.dk, &r.dv}) gradient->clear();
}

/// What is wrong, in words; empty: nothing.
std::string compare(const Kernel& kernel, const ShuffledChain& made, std::uint64_t seed,
                    bool forward) {
  const OracleProblem& p = made.problem;
  const TileGrid grid = own_grid(p, true);
  const OracleInputs inputs = random_inputs(p, seed);
  OracleResult truth = device_oracle(p, inputs), naive = device_naive(p, inputs);
  if (forward) keep_forward(truth);
  if (forward) keep_forward(naive);
  Runs runs{kernel, inputs, {.gap = 8, .gap_step = 8}};
  runs.options.backward = !forward;
  const std::vector<TestLaunch> whole{make_launch(p, one_segment(p), grid)};
  std::string problems;
  for (const bool deterministic : {true, false}) {
    const OracleResult one = runs.values(whole, deterministic);
    const OracleResult parts = runs.values(made.chain(grid), deterministic);
    const double share = shares_of(parts, truth, naive).worst();
    const double ratio = chain_ratio(parts, one, truth);
    std::printf(" %s %.2f of one launch, %.2f of the bound%s", deterministic ? "ordered" : "free",
                ratio, share, deterministic ? ";" : "");
    if (!(share <= 1.0)) problems += " ERROR";
    if (!(ratio <= kMost)) problems += " CHAIN";
    const std::string unseen = unseen_not_zero(whole.front(), parts);
    if (!unseen.empty()) problems += " UNSEEN" + unseen;
  }
  return problems;
}

void run(const Kernel& kernel, const OracleProblem& like, std::uint64_t seed, const Filter& filter,
         Tally& tally) {
  const ShuffledChain made = shuffled_chain(like, kRows + static_cast<std::int64_t>(seed), seed);
  const std::string name = name_of("hopper chains", made.problem) + " seed " +
                           std::to_string(seed) + " launches " +
                           std::to_string(made.launches.size());
  if (name.find(filter.only) == std::string::npos) return;
  ++tally.cases;
  std::printf("%s:", name.c_str());
  std::string problems;
  try {
    problems = compare(kernel, made, seed, filter.forward);
  } catch (const std::exception& error) {
    problems = std::string(" THROWS ") + error.what();
  }
  std::printf(" %s%s\n", problems.empty() ? "ok" : "FAIL", problems.c_str());
  std::fflush(stdout);
  tally.failed += problems.empty() ? 0 : 1;
}

}  // namespace

void chain_cases(const Filter& filter, Tally& tally) {
  for (const Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name != "hopper") continue;
    for (const auto& [dim, dim_v] :
         {std::pair{64, 64}, {96, 96}, {128, 128}, {192, 192}, {192, 128}, {256, 256}}) {
      for (int seed = 0; seed < kSeeds; ++seed) {
        const DType dtype = seed % 2 == 0 ? DType::bf16 : DType::f16;
        if (!kernel->refuses({dtype, dim, dim_v, false, "cuda"}).empty()) continue;
        // Of two heads the ratio is luck (hopper_backward_chains_test).
        OracleProblem like = problem_of(dtype, kRows, dim, 6, 3);
        like.head_dim_v = dim_v;
        run(*kernel, like, static_cast<std::uint64_t>(seed), filter, tally);
      }
    }
  }
}

}  // namespace annulus::testing
