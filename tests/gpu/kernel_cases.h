#pragma once

#include "tests/gpu/contract_cases.h"
#include "tests/support/launch.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

// Cases of kernels_gpu: problems that CUDA kernels are held against the oracle with.
namespace annulus::testing {

/// One case: launches that make up one problem. The first launch of the chain starts it.
struct Case {
  std::string name;
  std::vector<TestLaunch> chain;
  RunOptions options{.gap = 8, .gap_step = 8};  ///< 16-byte aligned rows, of different strides
  bool forward = false;                         ///< that pass alone
};

/// What was asked for.
struct Filter {
  std::string only;
  bool forward = false;  ///< that pass alone
  int repeats = 1;       ///< of which each must give the same bits
};

inline constexpr TileGrid kGrid{128, 128};

/// Causal.
OracleProblem problem_of(DType dtype, std::int64_t seq, std::int64_t dim, std::int64_t heads = 4,
                         std::int64_t heads_kv = 2);
/// As "causal bf16 dim 128:128 seq 130:130 heads 4:2".
std::string name_of(const char* what, const OracleProblem& p);

/// Runs those that were asked for, a line each, on those of the kernels that serve them.
class Cases {
 public:
  Cases(Filter filter, Tally& tally) : filter_(std::move(filter)), tally_(tally) {}

  void run(const Case& c, const std::vector<std::string_view>& names) const;
  /// Keys in one segment.
  void whole(const char* what, const OracleProblem& p, const std::vector<std::string_view>& names,
             const TileGrid& grid = kGrid) const;
  /// A launch for each part of the keys.
  void chained(const char* what, const OracleProblem& p, const std::vector<std::int64_t>& cuts,
               const std::vector<std::string_view>& names) const;

 private:
  Filter filter_;
  Tally& tally_;
};

}  // namespace annulus::testing
