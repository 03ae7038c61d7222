#pragma once

#include <annulus/problem.h>
#include <annulus/tensor.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace annulus::attn {

/// A [batch, token, head, dim] operand; strides in elements, the last one is 1. `head` 0 is the
/// first head of the launch (query heads) or the key/value head of query head 0 (see AttendParams).
template <typename Pointer>
struct Operand {
  Pointer data = nullptr;
  DType dtype = DType::f32;
  std::int64_t batch_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
};
using Input = Operand<const void*>;
using Output = Operand<void*>;

/// Keys, or query rows, that `needed` of a segment counts as one.
constexpr std::int64_t kArrivalBlock = 128;

/// Consecutive query rows of the launch: rows [row, row + count) of it are tokens token, token + 1,
/// ... of every q-like operand (q, out, lse, state, dout, delta, dq). The backward of GPU kernels
/// may be launched before q, dout, lse and delta of all rows are there, as KeySegment has it for
/// keys; dq is there from the beginning. The forward takes no counters
/// (AttendGeometry::rows_arrive).
struct QuerySegment {
  std::int64_t row = 0;
  std::int64_t token = 0;
  std::int64_t count = 0;
  const std::uint32_t* ready = nullptr;  ///< the counter, which never falls; null: all are there
  std::uint32_t all = 1;  ///< what it holds, or more, once all four of all rows are there
  /// The same for query head h of the launch and the rows [b, b + 1) * kArrivalBlock of the
  /// segment: needed[h * blocks + b], blocks = arrival_blocks(count). Null: `all`.
  const std::uint32_t* needed = nullptr;
};

/// Consecutive tokens of every k-like operand (k, v, dk, dv) and the positions they hold. The
/// segments of a launch share no token, also where their K and V are of several sources: dK and dV
/// of all are rows `token`, token + 1, ... of the launch's dk and dv. GPU kernels may be launched
/// before all keys are there: a counter then says how far they are.
struct KeySegment {
  std::int64_t token = 0;
  std::int64_t position = 0;  ///< of the first token
  std::int64_t stride = 1;    ///< between the positions of neighbours
  std::int64_t count = 0;
  const std::uint32_t* ready = nullptr;  ///< the counter, which never falls; null: all are there
  std::uint32_t all = 1;                 ///< what it holds, or more, once all keys are there
  /// Whose tokens K and V are: 0: the launch's k and v; s: AttendGeometry::sources[s - 1].
  std::int32_t source = 0;
  /// The same for key/value head h and the keys [b, b + 1) * kArrivalBlock of the segment: needed[h
  /// * blocks + b], h as kernels count heads, blocks = arrival_blocks(count). Null: `all`.
  const std::uint32_t* needed = nullptr;
};

/// K and V that segments may name beside the launch's own: of the same dtypes, with the same heads,
/// and of as many batch elements.
struct KeySource {
  Input k, v;
  std::int64_t key_tokens = 0;  ///< as AttendGeometry::key_tokens; 0: no segment names it
};

/// Of so many keys, or rows.
constexpr std::int64_t arrival_blocks(std::int64_t count) {
  return (count + kArrivalBlock - 1) / kArrivalBlock;
}

/// One tile to visit: query rows [row, row + rows) of the launch, tokens [key, key + keys) of
/// segment `segment` (indices within the segment). Full: no pair is masked. Partial: apply the row
/// intervals. Empty tiles are not listed. Tiles are sorted by (row, segment, key).
struct Tile {
  std::int32_t row = 0;
  std::int32_t rows = 0;
  std::int32_t segment = 0;
  std::int32_t keys = 0;
  std::int64_t key = 0;
  bool full = false;
};

/// Where a tile stands in the list of its query tile (the tiles that begin at the same row).
/// `turn`: how many tiles of the same query tile add to dq before it. Tiles of later keys go first,
/// so that under a causal mask the blocks that start with the diagonal never wait.
struct TilePlace {
  std::int32_t row_tile = 0;
  std::int32_t turn = 0;
};

/// What both passes share. Query head h of the launch (0 .. heads) reads head
/// (head_offset + h) / group of k and v, counted from the operand's first head.
struct AttendGeometry {
  std::int64_t batch = 1;
  std::int64_t heads = 0;
  std::int64_t head_offset = 0;
  std::int64_t group = 1;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  double softmax_scale = 1.0;
  double softcap = 0.0;  ///< 0: off
  /// Of the whole sequence, of which the launch may see a part: the KernelQuery's, by which its
  /// tiles were made. 0: not known.
  std::int64_t sequence_keys = 0;
  /// Query rows of the whole sequence, and query heads times batch elements of the whole problem,
  /// of which the launch may have a part: the same on all ranks. Deterministic launches are split
  /// by it. 0: not known.
  std::int64_t sequence_rows = 0;
  std::int64_t all_heads = 0;

  std::int64_t rows = 0;  ///< query rows of the launch, all segments
  std::span<const QuerySegment> queries;
  /// Some of `queries` have a counter, which the host may not see: forward kernels then refuse.
  bool rows_arrive = false;
  std::span<const KeySegment> keys;
  std::span<const Tile> tiles;
  /// For each row of the launch the key positions it sees: the one mask form.
  std::span<const RowIntervals> intervals;

  /// Index over `tiles` for kernels that share them among blocks (tile_index.h makes it; CPU
  /// kernels ignore it). A query tile is all tiles that begin at one row: row_tiles holds the begin
  /// of each in `tiles`, and the end. tiles_by_key holds the tiles sorted by (segment, key, row),
  /// key_tiles the begin of each key tile in it, and the end, and places what stands at each.
  /// key_tiles, tiles_by_key and places are read by backward alone. Both lists may hold joined
  /// tiles where the kernel says so (Kernel::joined_tiles): then tiles_by_key holds as many pairs
  /// as `tiles`, but not the same tiles, and places is empty.
  std::span<const std::int32_t> row_tiles{};
  std::span<const Tile> tiles_by_key{};
  std::span<const std::int32_t> key_tiles{};
  std::span<const TilePlace> places{};
  /// Rows that a query tile has; where it is `rows`, no row is left for a kernel that fills in what
  /// no tile names. -1: not known.
  std::int64_t covered_rows = -1;
  /// What the kernel made of these lists (Kernel::make_kept): its launches may change it, and leave
  /// it as they found it. Empty: nothing was made, and each launch makes it again.
  std::span<std::byte> kept{};

  /// One past the last token that a key segment names (tokens_of): all tokens before it may be
  /// read, if only to be ignored. 0: not said; kernels that copy whole boxes then do without. With
  /// `sources`, of those segments alone whose K and V are k and v; 0: there are none.
  std::int64_t key_tokens = 0;
  /// The same of the query segments, for backward.
  std::int64_t query_tokens = 0;

  /// What key segments name beside k and v (KeySegment::source).
  std::span<const KeySource> sources{};
  /// The same list where the host can read it: kernels that want to know strides before the launch
  /// leave launches without it to slower ones.
  std::span<const KeySource> sources_on_host{};
};

/// key_tokens (of one source) and query_tokens of these segments, where the host can read them.
inline std::int64_t tokens_of(std::span<const KeySegment> keys, std::int32_t source = 0) {
  std::int64_t end = 0;
  for (const KeySegment& segment : keys) {
    if (segment.source == source && segment.count > 0 && segment.token + segment.count > end) {
      end = segment.token + segment.count;
    }
  }
  return end;
}

inline std::int64_t tokens_of(std::span<const QuerySegment> queries) {
  std::int64_t end = 0;
  for (const QuerySegment& segment : queries) {
    if (segment.count > 0 && segment.token + segment.count > end) {
      end = segment.token + segment.count;
    }
  }
  return end;
}

/// How long a launch that takes keys, or rows, as they arrive stood still for them. Kernels add to
/// it.
struct WaitCount {
  std::uint64_t nanoseconds = 0;  ///< sum of the blocks' times with no work left and none there
  std::uint64_t blocks = 0;       ///< that counted; 0: the kernel does not
};

/// What a launch needs beside its operands. `poll` (may be empty) is called between tiles by the
/// calling thread, so that a transport can progress. `flops` is added to, where the tile product is
/// called: 2 * rows * keys * dim for each product. `traffic_bytes` is added to, where the kernel's
/// loop reads or writes an operand or a temporary that its algorithm materialises (the scores of
/// naive, O, l and m of flash1); blocks that a thread works in are not traffic. Either may be null.
struct LaunchContext {
  int threads = 1;
  std::function<void()> poll;
  std::int64_t* flops = nullptr;
  std::span<std::byte> workspace;  ///< as large as workspace_bytes() said; contents undefined
  std::int64_t* traffic_bytes = nullptr;
  /// CUDA kernels: cudaStream_t. They only enqueue, allocate nothing and may be captured. All
  /// pointers of the launch, `flops`, the workspace and the contents of geometry's spans included,
  /// are device memory; the sizes of spans are known on the host. `threads`, `poll` and
  /// `traffic_bytes` are not used.
  void* stream = nullptr;
  /// CUDA backward: same bits from run to run. Else blocks add to dq in the order in which they get
  /// there. Forward and the CPU's kernels give the same bits from run to run in any case; with it,
  /// a row's bits do not depend on how many rows and heads share the launch either (kernels that
  /// split few rows over many keys do so by what the geometry says of the whole sequence alone).
  bool deterministic = false;
  /// A nonzero value ends every wait inside a kernel, which then returns: results are void.
  const std::uint32_t* abort = nullptr;
  /// CUDA kernels whose blocks stay for the whole launch take at most so many SMs; 0: all.
  int sm_limit = 0;
  /// CUDA: device memory, 8-byte aligned; null: nobody asks, and no clock is read.
  WaitCount* waited = nullptr;
  /// `flops` begins with 0: nothing was added before. Of kernels that say so
  /// (Kernel::zeroes_flops).
  bool flops_assign = false;
  /// CUDA: what comes right before on the stream is a kernel of the same call, and the launch waits
  /// for nothing else. A kernel that waits for it by itself may be launched early.
  bool behind_kernel = false;
};

/// out = softmax(...) v, or a state. With `resume`, (state, lse) hold earlier keys' result and are
/// continued. With `finish`, `out` is written in its dtype, rounded once; else `state` (fp32,
/// normalised). `lse` (fp32, natural log, dim 1) is always written. state.data may equal out.data
/// where out is f32. A row that saw no key: O = 0, LSE = -inf.
struct ForwardParams {
  AttendGeometry geometry;
  Input q, k, v;
  Output out, lse, state;
  bool resume = false;
  bool finish = true;
};

/// Gradients, recomputing P from lse. delta = rowsum(dO * O). dq, dk, dv are fp32; each is added
/// to, or with *_assign written: then every row (token) of the launch is defined, also unvisited.
/// Kernels that say so (Kernel::rounds_dkv) also write dk and dv in the dtype of q, rounded once.
struct BackwardParams {
  AttendGeometry geometry;
  Input q, k, v, dout, lse, delta;
  Output dq, dk, dv;
  bool dq_assign = false;
  bool dkv_assign = false;
  /// Optional, by key/value head of the launch: GPU kernels may add 1, to be seen by copies and
  /// streams, when dk and dv of a key tile and batch element are written: batch times key tiles in
  /// all. Whoever enqueues them writes that behind them, for those that do not.
  std::uint32_t* done = nullptr;
};

}  // namespace annulus::attn
