#pragma once

#include "attention/kernels/params.h"

#include <cstdint>

// What kernels get by value: AttendGeometry with bare pointers to device memory.
namespace annulus::attn::cuda {

struct Geometry {
  std::int64_t batch, heads, head_offset, group, head_dim, head_dim_v, rows;
  double softmax_scale, softcap;
  const QuerySegment* queries;
  const KeySegment* keys;
  const Tile* tiles;
  const KeyInterval* intervals;  ///< two for each row
  const std::int32_t* row_tiles;
  const Tile* tiles_by_key;
  const std::int32_t* key_tiles;
  const TilePlace* places;
  const KeySource* sources;
  std::int32_t query_count, key_count, tile_count, row_tile_count, key_tile_count;
  std::int32_t first_kv_head, kv_heads;  ///< that the launch reads
  const std::uint32_t* abort;
  unsigned long long* flops;
  unsigned long long* waited;  ///< WaitCount; null: not counted
};

inline Geometry geometry_of(const AttendGeometry& g, const LaunchContext& context) {
  const auto count = [](const auto& span) { return static_cast<std::int32_t>(span.size()); };
  const auto less_end = [&](const auto& span) { return span.empty() ? 0 : count(span) - 1; };
  const std::int64_t first = g.head_offset / g.group;
  return {.batch = g.batch,
          .heads = g.heads,
          .head_offset = g.head_offset,
          .group = g.group,
          .head_dim = g.head_dim,
          .head_dim_v = g.head_dim_v,
          .rows = g.rows,
          .softmax_scale = g.softmax_scale,
          .softcap = g.softcap,
          .queries = g.queries.data(),
          .keys = g.keys.data(),
          .tiles = g.tiles.data(),
          .intervals = reinterpret_cast<const KeyInterval*>(g.intervals.data()),
          .row_tiles = g.row_tiles.data(),
          .tiles_by_key = g.tiles_by_key.data(),
          .key_tiles = g.key_tiles.data(),
          .places = g.places.data(),
          .sources = g.sources.data(),
          .query_count = count(g.queries),
          .key_count = count(g.keys),
          .tile_count = count(g.tiles),
          .row_tile_count = g.tiles.empty() ? 0 : less_end(g.row_tiles),
          .key_tile_count = g.tiles.empty() ? 0 : less_end(g.key_tiles),
          .first_kv_head = static_cast<std::int32_t>(first),
          .kv_heads = static_cast<std::int32_t>(
              g.heads == 0 ? 0 : (g.head_offset + g.heads - 1) / g.group - first + 1),
          .abort = context.abort,
          .flops = reinterpret_cast<unsigned long long*>(context.flops),
          .waited = reinterpret_cast<unsigned long long*>(context.waited)};
}

}  // namespace annulus::attn::cuda
