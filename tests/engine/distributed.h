#pragma once

#include "tests/support/oracle.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::testing {

/// One call of the library, forward and backward.
struct RunOptions {
  Algorithm algorithm = Algorithm::ring;
  Layout layout = Layout::zigzag();
  Algorithm outer = Algorithm::ring;
  std::string kernel = "auto";
  int threads = 1;
  bool blocking = false;
};

/// One rank's shards as doubles, compact, [batch, seq_local, heads, dim]; lse [batch, heads, seq].
struct RankResult {
  std::vector<double> out, lse, dq, dk, dv;
  CallStats forward, backward;
};

/// Shards the full inputs, runs this rank's part with strided tensors whose padding and outputs are
/// NaN, checks that the padding is still NaN. Collective.
RankResult run_rank(Mesh& mesh, const Problem& problem, const OracleInputs& inputs,
                    const RunOptions& options);

/// Largest error of each result over all ranks, over the largest true value: max|x - ref| /
/// max|ref|. NaN or a wrong infinity counts as infinite.
struct Errors {
  double out = 0, lse = 0, dq = 0, dk = 0, dv = 0;
};

/// Collective. Compares this rank's shards with the oracle's full tensors, then takes the maximum.
Errors errors_of(Mesh& mesh, const Problem& problem, const Sharding& sharding,
                 const RankResult& result, const OracleResult& truth);

std::string describe(const Problem& problem, const RunOptions& options, int world);

}  // namespace annulus::testing
