#pragma once

#include "attention/bands.h"
#include "attention/row_table.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// Consecutive heads.
struct HeadRange {
  std::int32_t first = 0;
  std::int32_t count = 0;

  std::int32_t end() const { return first + count; }
};

/// The ranks of one ulysses group seen as one holder of tokens: their shards, one after the other.
/// With ulysses = 1 a group is a rank.
struct Group {
  std::vector<TokenRange> rows;
  std::vector<TokenRange> keys;
  std::int64_t seq = 0;
  std::int64_t seq_kv = 0;
  std::vector<std::int64_t> row_begin;  ///< by member, and the end: where its rows start
  std::vector<std::int64_t> key_begin;
};

}  // namespace annulus::attn

namespace annulus {

/// What all ranks' plans share; made once, then read only.
struct Plan::Impl {
  PlanRequest request;  ///< problem resolved
  Sharding sharding;
  std::vector<attn::Band> bands;
  std::vector<attn::Group> groups;        ///< by ring index
  std::vector<attn::HeadRange> heads;     ///< query heads by ulysses index
  std::vector<attn::HeadRange> heads_kv;  ///< key/value heads they read
  bool kv_heads_shared = false;           ///< some key/value head is read by two ranks of a group
  /// Query heads of the largest share, in slices: where each ends. One group of several ranks only.
  std::vector<std::int32_t> slice_ends;
  std::vector<std::vector<KeyInterval>> needed;  ///< by group: keys it wants; gather only
  std::int64_t max_group_seq_kv = 0;
  RingBytes ring_bytes;
  bool moves_queries = false;
  /// By group, where queries move: what the ranks that they come to know of them.
  std::vector<attn::RowTable> row_tables;
  std::int64_t max_group_seq = 0;
  std::uint32_t hash = 0;

  const Problem& problem() const { return request.problem; }
  std::int32_t group_size() const {
    return static_cast<std::int32_t>(problem().heads / *problem().heads_kv);
  }
  int ring_index(int rank) const { return rank / request.mesh.ulysses; }
  int ulysses_index(int rank) const { return rank % request.mesh.ulysses; }
  int rank_at(int ring, int ulysses) const { return ring * request.mesh.ulysses + ulysses; }
};

}  // namespace annulus
