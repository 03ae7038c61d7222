#pragma once

#include "attention/kernels/cpu/tile_ops.h"

#include <cstdint>

// The tile products of attention, of `keys` keys and `rows` query rows. Keys lie
// [keys][pitch(dim)], query rows in columns [dim][kRows] or in rows [rows][pitch(dim)], scores
// [keys][kRows].
namespace annulus::attn::cpu {

/// scores[key][row] = keys . columns: S^T = K Q^T, dP^T = V dO^T.
inline void multiply_keys(const TileOps& ops, std::int64_t keys, std::int64_t rows,
                          std::int64_t dim, const float* key_rows, const float* columns,
                          float* scores) {
  ops.multiply({.m = keys,
                .n = padded(rows),
                .k = dim,
                .a = key_rows,
                .a_m = pitch(dim),
                .a_k = 1,
                .b = columns,
                .b_k = kRows,
                .c = scores,
                .c_m = kRows});
}

/// columns[d][row] += sum over keys of key_rows[key][d] * weights[key][row]: O^T += V^T P^T,
/// dQ^T += K^T dS^T.
inline void add_weighted_keys(const TileOps& ops, std::int64_t keys, std::int64_t rows,
                              std::int64_t dim, const float* key_rows, const float* weights,
                              float* columns) {
  ops.multiply({.m = dim,
                .n = padded(rows),
                .k = keys,
                .a = key_rows,
                .a_m = 1,
                .a_k = pitch(dim),
                .b = weights,
                .b_k = kRows,
                .c = columns,
                .c_m = kRows,
                .add = true});
}

/// sums[key] = or += sum over rows of weights[key][row] * query_rows[row]: dV = P^T dO, dK = dS^T
/// Q.
inline void weigh_rows(const TileOps& ops, std::int64_t keys, std::int64_t rows, std::int64_t dim,
                       const float* weights, const float* query_rows, float* sums, bool add) {
  ops.multiply({.m = keys,
                .n = padded(dim),
                .k = rows,
                .a = weights,
                .a_m = kRows,
                .a_k = 1,
                .b = query_rows,
                .b_k = pitch(dim),
                .c = sums,
                .c_m = pitch(dim),
                .add = add});
}

}  // namespace annulus::attn::cpu
