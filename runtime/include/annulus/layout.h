#pragma once

#include <annulus/export.h>
#include <annulus/problem.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

/// Global positions begin, begin + stride, ... : `count` of them.
struct TokenRange {
  std::int64_t begin = 0;
  std::int64_t count = 0;
  std::int64_t stride = 1;

  std::int64_t position(std::int64_t index) const { return begin + index * stride; }
  bool operator==(const TokenRange&) const = default;
};

/// The tokens of one rank, in their local order.
using Shard = std::vector<TokenRange>;

/// How a sequence is cut over ranks. Shards may be uneven; no length needs to divide.
class ANNULUS_API Layout {
 public:
  enum class Kind : std::uint8_t { contiguous, zigzag, striped, balanced, given };

  /// Rank r holds the r-th of world consecutive chunks.
  static Layout contiguous();
  /// Of 2 * world chunks, rank r holds r and 2 * world - 1 - r: equal causal work.
  static Layout zigzag();
  /// Rank r holds positions r, r + world, r + 2 * world, ...
  static Layout striped();
  /// Chunks are dealt so that the unmasked area is even over ranks and neighbours stay together.
  static Layout balanced();
  /// The caller's own: for each rank its token ranges, which must cover every position once. The
  /// keys follow `kv`, or the same shards where that is empty (needs seq_kv = seq).
  static Layout given(std::vector<Shard> shards, std::vector<Shard> kv = {});

  Kind kind() const { return kind_; }
  const std::vector<Shard>& shards() const { return shards_; }
  const std::vector<Shard>& shards_kv() const { return shards_kv_; }
  std::string name() const;

 private:
  Kind kind_ = Kind::zigzag;
  std::vector<Shard> shards_;
  std::vector<Shard> shards_kv_;
};

/// A layout solved for one problem and world: who owns which positions of queries and of keys.
class ANNULUS_API Sharding {
 public:
  Sharding() = default;
  Sharding(std::vector<Shard> q, std::vector<Shard> kv);

  int world() const { return static_cast<int>(q_.size()); }
  const Shard& shard(int rank) const { return q_.at(static_cast<std::size_t>(rank)); }
  const Shard& shard_kv(int rank) const { return kv_.at(static_cast<std::size_t>(rank)); }
  std::int64_t seq_local(int rank) const;
  std::int64_t seq_kv_local(int rank) const;

  /// Global position of each local query token (labels, masks, position ids follow it).
  std::vector<std::int64_t> positions(int rank) const;
  std::vector<std::int64_t> positions_kv(int rank) const;

 private:
  std::vector<Shard> q_;
  std::vector<Shard> kv_;
};

/// Solves `layout` for `problem` over `world` ranks. Throws InvalidArgument where given shards do
/// not cover every position exactly once.
ANNULUS_API Sharding solve_layout(const Layout& layout, const Problem& problem, int world);

/// Unmasked (query, key) pairs of one head of one batch element, by the rank that owns the query.
ANNULUS_API std::vector<std::int64_t> count_pairs_by_rank(const Problem& problem,
                                                          const Sharding& sharding);

/// Copies this rank's tokens of a full tensor [batch, seq, ...] into a compact local one
/// [batch, seq_local, ...], and back. Shapes must agree in every dimension but the second.
ANNULUS_API void shard(const Shard& shard, const ConstTensorView& full, const TensorView& local);
ANNULUS_API void unshard(const Shard& shard, const ConstTensorView& local, const TensorView& full);

}  // namespace annulus
