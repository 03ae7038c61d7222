#pragma once

#include "launch/bench/tensors.h"

#include <annulus/annulus.h>

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// One output against float64: rel_err = max|x - ref| / max|ref|, over all ranks.
struct CheckLine {
  std::string name;  ///< out, lse, dq, dk, dv
  double rel_err = 0;
  double bound = 0;
  std::int64_t elements = 0;  ///< compared
};

struct CheckReport {
  std::vector<CheckLine> lines;
  bool sampled = false;
  bool passed() const;
};

struct CheckRequest {
  Problem problem;  ///< resolved
  std::uint64_t seed = 0;
  bool backward = false;
  bool sampled = true;
};

/// Collective. Full: each rank recomputes its own query rows (out, lse, dq) and, with lse and delta
/// of all rows gathered, its own key rows (dk, dv), all heads. Sampled: random rows, keys and heads
/// up to about 2e9 FLOPs a rank; there dk and dv are recomputed from the run's own out and lse,
/// whose sampled rows are checked themselves. Every rank returns the same report.
CheckReport check(Mesh& mesh, const CheckRequest& request, const Sharding& sharding,
                  const Shards& shards);

/// How far rounding may take output `name`, from the unit roundoff of `dtype` and the longest sum.
double bound_of(std::string_view name, DType dtype, std::int64_t terms);

}  // namespace annulus::launch
