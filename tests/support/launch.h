#pragma once

#include "attention/kernels/dispatch.h"
#include "tests/support/oracle.h"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

// Direct kernel launches, without plan or transport.
namespace annulus::testing {

/// A [batch, token, head, dim] tensor of its own memory with gaps after every head, token and
/// batch, tokens or heads outside. All of it starts as NaN.
class TestTensor {
 public:
  TestTensor(DType dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
             std::int64_t dim, std::int64_t gap, bool heads_first = false);

  attn::Input input() const;
  attn::Output output();

  /// Compact [batch, token, head, dim], tokens[i] being the place of row i of `values`.
  void set(const std::vector<double>& values, const std::vector<std::int64_t>& tokens);
  std::vector<double> get(const std::vector<std::int64_t>& tokens) const;

  /// Are the gaps as they were?
  bool gaps_untouched() const;

 private:
  template <typename Fn>
  void for_each(const std::vector<std::int64_t>& tokens, Fn&& fn) const;

  DType dtype_;
  std::int64_t batch_, tokens_, heads_, dim_;
  std::int64_t head_stride_, token_stride_, batch_stride_;
  std::vector<std::byte> bytes_;
};

/// One launch over some rows and keys of a problem. Query tokens are query positions; the key
/// segments say where keys lie. Each source that they name is a pair of tensors of its own, with
/// strides of its own and NaN where others have tokens.
struct TestLaunch {
  OracleProblem problem;
  std::vector<attn::QuerySegment> queries;
  std::vector<attn::KeySegment> keys;
  std::vector<RowIntervals> intervals;
  std::vector<attn::Tile> tiles;
  /// AttendGeometry's. Where it is known, so are the sequence's rows and heads: the problem's.
  std::int64_t sequence_keys = 0;

  attn::AttendGeometry geometry() const;
};

struct TileGrid {
  std::int64_t rows = 64;
  std::int64_t keys = 128;
};

/// Intervals and tiles for all rows of `problem` and these keys: from `allowed`, pair by pair.
TestLaunch make_launch(const OracleProblem& problem, const std::vector<attn::KeySegment>& keys,
                       const TileGrid& grid = {});

/// The keys [0, seq_kv) as one segment.
std::vector<attn::KeySegment> one_segment(const OracleProblem& problem);
/// Pairs that the tiles of all launches of a chain name, of all heads.
std::int64_t pairs_of(const std::vector<TestLaunch>& chain);
/// Keys 0, 1, ... in segments that end before each of `cuts`, and before `keys`.
std::vector<attn::KeySegment> segments_cut_at(std::int64_t keys, std::vector<std::int64_t> cuts);
/// In `stride` segments of every stride-th key.
std::vector<attn::KeySegment> striped_segments(std::int64_t keys, std::int64_t stride);
/// The same segments, of which each names the source after the last one's, 0 to `count` - 1 in
/// turn.
std::vector<attn::KeySegment> from_sources(std::vector<attn::KeySegment> segments,
                                           std::int32_t count);

struct RunOptions {
  int threads = 1;
  std::int64_t gap = 3;
  std::int64_t gap_step = 1;  ///< what v has more: operands need not have the same strides
  bool heads_first = false;   ///< operands lie [batch, head, token, dim]
  bool backward = true;
  bool add_key_gradients = false;  ///< launches after the first add to dk and dv
  bool rounded_keys = false;       ///< dk and dv in the dtype of the problem
  bool state_in_out = false;       ///< f32 only: the state lies where out will
};

struct RunResult {
  OracleResult values;
  std::int64_t forward_flops = 0;
  std::int64_t backward_flops = 0;
  std::int64_t forward_bytes = 0;  ///< traffic that the kernel counted
  std::int64_t backward_bytes = 0;
  std::int64_t polls = 0;
  bool gaps_untouched = true;
};

/// Rows that see no key must have exact zeros in out and dq, keys that no row sees in dk and dv.
/// Which of them has not, and where first; empty: all have. `launch` says what rows see, and names
/// all keys of its problem. Gradients may be absent.
std::string unseen_not_zero(const TestLaunch& launch, const OracleResult& values);

/// The launches one after another, each resuming from the last; then their backward passes. The
/// first assigns dq, the others add to it; each assigns the dk and dv of its keys, unless told to
/// add. Gradients of keys that no launch names are 0.
RunResult run_kernel(const attn::Kernel& kernel, const std::vector<TestLaunch>& chain,
                     const OracleInputs& inputs, const RunOptions& options = {});

}  // namespace annulus::testing
