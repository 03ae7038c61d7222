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
  /// Elements between tokens that belong to nobody. 3 leaves GPU kernels no aligned row, 8 does:
  /// another path of theirs, whose error is another one.
  std::int64_t pad = 3;
  bool deterministic = false;
  int ulysses_slices = 0;
  bool caller_arena =
      false;      ///< SessionOptions::arena: NaN all over, and nothing behind it is touched
  int calls = 1;  ///< forward and backward so often, into the same poisoned outputs
  BackwardMoves backward_moves = BackwardMoves::automatic;
};

/// Where runs compute and what carries them: ANNULUS_TEST_BACKEND (cpu) and ANNULUS_TEST_TRANSPORT
/// (auto). On cuda the tensors are uploaded and results downloaded around the calls.
struct TestPlace {
  std::string backend = "cpu";
  std::string transport = "auto";
  int ranks_per_host = 0;            ///< ANNULUS_TEST_RANKS_PER_HOST
  std::string peer_copies = "auto";  ///< ANNULUS_TEST_PEER_COPIES
  bool gather_at_once = true;        ///< ANNULUS_TEST_GATHER_AT_ONCE = 0: false
  bool gather_push = true;           ///< ANNULUS_TEST_GATHER_PUSH = 0: false
  bool shares_nccl = false;          ///< ANNULUS_TEST_NCCL = shared: shared_nccl.h
};
TestPlace test_place();

/// One rank's shards as doubles, compact, [batch, seq_local, heads, dim]; lse [batch, heads, seq].
struct RankResult {
  std::vector<double> out, lse, dq, dk, dv;
  CallStats forward, backward;
};

/// Shards the full inputs, runs this rank's part with strided tensors whose padding and outputs are
/// NaN, in an arena that is NaN all over before the first call, checks that the padding is still
/// NaN. Collective.
RankResult run_rank(Mesh& mesh, const Problem& problem, const OracleInputs& inputs,
                    const RunOptions& options);

/// Over all ranks: max|x - ref| / max|ref|, and the root of the mean squares' ratio. Then errors in
/// units of what rounding does to each element (rounding_sizes.h): the largest, and their root mean
/// square; 0 for lse. NaN or a wrong infinity counts as infinite.
struct ResultError {
  double largest = 0, rms = 0;
  double most_sizes = 0, rms_sizes = 0;
};
struct Errors {
  ResultError out, lse, dq, dk, dv;
};

/// Collective. Compares this rank's shards with the oracle's full tensors. `sizes`: rounding_sizes
/// of it; null: errors in units of them are 0.
Errors errors_of(Mesh& mesh, const Problem& problem, const Sharding& sharding,
                 const RankResult& result, const OracleResult& truth,
                 const OracleResult* sizes = nullptr);

std::string describe(const Problem& problem, const RunOptions& options, int world);

}  // namespace annulus::testing
