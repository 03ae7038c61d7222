#pragma once

#include <annulus/export.h>
#include <annulus/layout.h>
#include <annulus/mesh.h>
#include <annulus/problem.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

/// `automatic` is resolved to one of the others before a plan is made.
enum class Algorithm : std::uint8_t { automatic, ring, gather, ulysses, hybrid };
enum class Pass : std::uint8_t { forward, backward };

/// What travels around a ring in backward: K and V with fp32 dK and dV, or Q, dO, LSE and row sums
/// with fp32 dQ. `automatic`: what sends fewer bytes, all ranks together; equal: keys. Only `ring`
/// and `hybrid` with outer ring can move queries; others move keys whatever is said.
enum class BackwardMoves : std::uint8_t { automatic, keys, queries };

ANNULUS_API std::string_view name_of(Algorithm algorithm);
ANNULUS_API std::string_view name_of(Pass pass);
ANNULUS_API std::string_view name_of(BackwardMoves moves);

// ---- The plan as data. Indices are int32 and local to one rank's plan. ----

/// Some entries of one of RankPlan's flat arrays.
struct Slice {
  std::int32_t begin = 0;
  std::int32_t count = 0;
};

enum class Space : std::uint8_t {
  caller,    ///< the caller's tensor, or its shard
  private_,  ///< memory of this rank that no other rank touches
  symmetric  ///< memory that other ranks may read or write
};

/// Which of the caller's tensors a caller slot is.
enum class Role : std::uint8_t { none, q, k, v, out, lse, dout, dq, dk, dv };

/// A buffer of [batch, tokens, heads, dim] elements; those of the caller lie by its strides.
struct PlanSlot {
  std::string_view name;  ///< a string literal
  Space space = Space::private_;
  Role role = Role::none;
  DType dtype = DType::f32;
  std::int64_t tokens = 0;
  std::int32_t heads = 0;
  std::int32_t dim = 0;
  /// Transfers go through it as [batch, heads, tokens, dim], and it lies so in the arena: some
  /// heads are one piece.
  bool heads_first = false;
  std::int32_t first_item = -1;  ///< first and last item that touch it; -1: unused
  std::int32_t last_item = -1;
  std::int64_t bytes = 0;
  std::int64_t offset = 0;  ///< in the rank's arena; unused for caller slots
};

/// Part of a slot: tokens token, token + token_step, ... x heads x dims, in every batch element.
struct Block {
  std::int32_t slot = -1;
  std::int64_t token = 0;
  std::int64_t tokens = 0;
  std::int64_t token_step = 1;
  std::int32_t head = 0;
  std::int32_t heads = 0;
  std::int32_t dim = 0;
  std::int32_t dims = 0;
  bool operator==(const Block&) const = default;
};

enum class ItemKind : std::uint8_t { transfer, attend, merge, reduce, prepare };

/// One step of a rank. It may start when `waits` (earlier items of this call) and
/// `waits_previous` (items of the call before, on the same session) have completed.
struct Item {
  ItemKind kind = ItemKind::prepare;
  std::int32_t step = 0;     ///< a label
  std::int32_t payload = 0;  ///< index into the vector of its kind
  Slice waits;               ///< of RankPlan::edges
  Slice waits_previous;      ///< of RankPlan::edges
  Slice accesses;            ///< of RankPlan::accesses
};

enum class AccessMode : std::uint8_t { read, write, update };

/// What an item touches. Conflicting accesses are ordered by edges: the plan checker proves it.
struct Access {
  Block block;
  AccessMode mode = AccessMode::read;
};

/// Who moves the data where one end addresses the other's memory. Whoever does may have its end in
/// the caller's tensor, of which the other rank knows nothing.
enum class Mover : std::uint8_t { any, sender, receiver };

/// One end of a transfer. The other end stands in the peer's plan under the same tag. Its two
/// signals: `ready`, raised for the receiver when the source may be read, and `free`, raised for
/// the sender when it may be overwritten. Both are named by (sender, receiver, tag).
struct Transfer {
  bool sends = false;
  std::int32_t peer = 0;
  std::int32_t tag = 0;  ///< unique for (sender, receiver) in a plan
  /// The same on both ends, never falling along a rank's items. Nothing waits for a transfer before
  /// the last one of its round, so that a round may be one launch.
  std::int32_t round = 0;
  Block block;  ///< of this rank: the source where it sends, else the destination
  std::int64_t bytes = 0;
  Mover mover = Mover::any;  ///< the same on both ends; any: as the link does it
};

/// Rows of a slot with the positions they hold.
struct Segment {
  std::int32_t slot = -1;      ///< unused in query segments: see Attend::q
  std::int64_t token = 0;      ///< first row in the slot
  TokenRange positions;        ///< global positions of those rows
  std::int64_t first_row = 0;  ///< query segments: of RankPlan::rows
};

/// A tensor of a slot: dims [dim, dim + dims) of heads that start at global head `head_origin`.
struct SlotView {
  std::int32_t slot = -1;
  std::int32_t head_origin = 0;
  std::int32_t dim = 0;
};

/// Query rows meet key/value segments. Forward writes a state (state, lse), or `out` when it
/// finishes; backward adds to (or, with *_assign, writes) fp32 dq, dk, dv; or writes dk and dv in
/// the input dtype, rounded once, where their slots are of it (PlanOptions::rounded_dkv).
struct Attend {
  Pass pass = Pass::forward;
  /// Of RankPlan::segments; q-like views share these rows, whose first_row follow each other.
  Slice queries;
  Slice keys;             ///< of RankPlan::segments; Segment::slot unused, see k and v
  std::int32_t head = 0;  ///< global query heads [head, head + heads)
  std::int32_t heads = 0;
  SlotView q, k, v;
  SlotView out;                      ///< forward: written in the input dtype when `finish`
  SlotView lse;                      ///< forward: part of the state, natural log; backward: read
  SlotView state;                    ///< forward: fp32 O; slot -1 when one launch does it all
  SlotView dout, delta, dq, dk, dv;  ///< backward
  bool resume = false;
  bool finish = false;
  bool dq_assign = false;
  bool dkv_assign = false;
  /// May start before the transfers that write its k and v are over: its kernel is told how far
  /// they are. Where that cannot be, it waits for them as for the others.
  bool on_arrival = false;
  /// Transfers may read the dk and dv of a key/value head once that head is done: its kernel says
  /// so. Where that cannot be, they wait for its end.
  bool by_head = false;
  std::int64_t pairs = 0;  ///< unmasked (query, key) pairs of one head of one batch element
  std::int64_t flops = 0;  ///< of the tiles it visits, all heads and batch elements
};

/// (state, lse) <- merge of (state, lse) and (other, other_lse); finishes into `out` if asked.
struct Merge {
  Block state, lse, other, other_lse;
  Block out;  ///< slot -1: not the last
};

/// target (+)= source, fp32.
struct Reduce {
  Block source, target;
  bool assign = false;
};

enum class PrepareKind : std::uint8_t {
  copy,     ///< same dtype
  convert,  ///< fp32 to the input dtype, rounding once
  zero,     ///< target only
  row_sums  ///< target = sum over dims of source * source2 (dO and O), fp32
};

struct Prepare {
  PrepareKind kind = PrepareKind::copy;
  Block source, source2, target;
};

/// What a rank's plan adds up to.
struct PlanTotals {
  std::int64_t item_count = 0;
  std::int64_t transfer_count = 0;
  std::int64_t masked_pairs = 0;  ///< over this rank's attends, heads and batch elements
  std::int64_t flops = 0;
  std::int64_t bytes_sent = 0;
  std::int64_t bytes_received = 0;
  std::int64_t arena_bytes = 0;   ///< private and symmetric slots
  std::int64_t caller_bytes = 0;  ///< the rank's shards
  std::int64_t peak_bytes() const { return arena_bytes + caller_bytes; }
  bool operator==(const PlanTotals&) const = default;
};

/// Everything one rank does in one call, in one enqueue order.
struct ANNULUS_API RankPlan : PlanTotals {
  int rank = 0;
  Pass pass = Pass::forward;
  std::vector<PlanSlot> slots;
  std::vector<Item> items;
  std::vector<Transfer> transfers;
  std::vector<Attend> attends;
  std::vector<Merge> merges;
  std::vector<Reduce> reduces;
  std::vector<Prepare> prepares;
  std::vector<Segment> segments;
  std::vector<Access> accesses;
  std::vector<std::int32_t> edges;
  /// Query positions that attends index by Segment::first_row: the group's own, then those of
  /// groups whose queries come here.
  std::vector<TokenRange> rows;

  std::span<const std::int32_t> waits(const Item& item) const;
  std::span<const std::int32_t> waits_previous(const Item& item) const;
};

/// "rank 2 item 7: transfer step 1 kv from rank 1", for messages and traces.
ANNULUS_API std::string describe(const RankPlan& plan, std::int32_t item);

/// How `gather` launches its kernels.
enum class GatherLaunch : std::uint8_t {
  slices,      ///< a launch a slice; two slices are held, and a few parts of dK/dV
  on_arrival,  ///< one launch, keys in the order in which they arrive, own ones first
  in_position  ///< one launch, keys in order of position
};

struct PlanOptions {
  Algorithm outer = Algorithm::ring;  ///< hybrid: ring or gather between ulysses groups
  std::int64_t tile_q = 64;           ///< the tile grid that `flops` counts
  std::int64_t tile_k = 64;
  int gather_slices = 0;  ///< 0: chosen
  GatherLaunch gather_launch = GatherLaunch::slices;
  int ulysses_slices = 1;  ///< launches of a pass, at most a head each; 0: chosen
  bool resume = true;      ///< false: kernels that cannot start from a state; merges are planned
  /// true: transfers may not touch caller slots, but for those of ulysses groups where that end
  /// moves the data: with give_in_place senders write q, K, V, dO and LSE out of the caller's
  /// tensors, with land_in_place receivers fetch results into them.
  bool stage_caller = false;
  bool give_in_place = false;
  bool land_in_place = false;
  bool rounded_dkv = false;  ///< true: kernels that write dk and dv in the input dtype
  BackwardMoves backward_moves = BackwardMoves::automatic;
  /// gather: the keys that a rank needs begin where a key tile does, though its rows may see none
  /// of the first ones. With keys in order of position (not on_arrival) a row's bits do not depend
  /// on the number of ranks then.
  bool keys_on_grid = false;
};

struct PlanRequest {
  Problem problem{};
  Layout layout = Layout::zigzag();
  Algorithm algorithm = Algorithm::ring;
  MeshShape mesh{};
  Pass pass = Pass::forward;
  PlanOptions options{};
};

/// Bytes that all ranks together send around the ring in one backward, if keys or queries move.
struct RingBytes {
  std::int64_t keys = 0;
  std::int64_t queries = 0;
};

/// A plan for every rank. Pure: no device, no communicator. Ranks are materialised on demand.
class ANNULUS_API Plan {
 public:
  const PlanRequest& request() const;
  int world() const { return request().mesh.world(); }
  const Sharding& sharding() const;

  /// What backward moves around the ring: keys or queries. Forward and all else: keys.
  BackwardMoves backward_moves() const;
  /// Of backward plans that may move either; of others 0.
  RingBytes ring_bytes() const;

  /// Thread-safe.
  RankPlan rank(int rank) const;

  /// What rank(rank) adds up to, many times faster: items are counted, not kept. Thread-safe.
  PlanTotals totals(int rank) const;

  /// Nonzero, 31 bits, of everything that shapes the plan. Ranks agree on it before any payload.
  std::uint32_t hash() const;

  struct Impl;
  explicit Plan(std::shared_ptr<const Impl> impl) : impl_(std::move(impl)) {}
  const Impl& impl() const { return *impl_; }

 private:
  std::shared_ptr<const Impl> impl_;
};

/// Throws InvalidArgument for a request that cannot be (ulysses degree, mesh, layout, problem).
ANNULUS_API Plan make_plan(const PlanRequest& request);
ANNULUS_API Plan make_plan(const Problem& problem, const Layout& layout, Algorithm algorithm,
                           MeshShape mesh, Pass pass = Pass::forward);

/// What is wrong with a plan, in words; empty: nothing. Materialises every rank, orders all
/// conflicting accesses over two consecutive calls, and matches both ends of each transfer.
ANNULUS_API std::vector<std::string> check_plan(const Plan& plan);
/// `stage_caller`: PlanOptions'.
ANNULUS_API std::vector<std::string> check_plan(const std::vector<RankPlan>& ranks,
                                                bool stage_caller = false);

}  // namespace annulus
