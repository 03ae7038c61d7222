#pragma once

#include <annulus/export.h>
#include <annulus/problem.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus {

/// The key positions that each of problem.seq query rows may see: what a mask means.
ANNULUS_API KeyLists compile_mask(const Problem& problem);

/// One query head and its key/value head in float64, compact: q, dout [seq, dim]; k, v
/// [seq_kv, dim]. Borrowed.
struct ReferenceHead {
  std::int64_t seq = 0;
  std::int64_t seq_kv = 0;
  std::int64_t head_dim = 0;
  std::int64_t head_dim_v = 0;
  const double* q = nullptr;
  const double* k = nullptr;
  const double* v = nullptr;
  const double* dout = nullptr;    ///< backward only
  const KeyLists* mask = nullptr;  ///< of seq rows
  double softmax_scale = 1.0;
  double softcap = 0.0;
};

/// Attention as the textbook has it, by plain loops: out [rows.size(), head_dim_v], lse
/// [rows.size()] of the query rows `rows`. A row that sees no key: out 0, lse -inf.
ANNULUS_API void reference_forward(const ReferenceHead& head, std::span<const std::int64_t> rows,
                                   double* out, double* lse);

/// dq [rows.size(), head_dim] of the query rows `rows`; lse and delta (rowsum of dO * O) are those
/// rows' own.
ANNULUS_API void reference_backward_rows(const ReferenceHead& head,
                                         std::span<const std::int64_t> rows, const double* lse,
                                         const double* delta, double* dq);

/// Adds this query head's part of dk [keys.size(), head_dim] and dv [keys.size(), head_dim_v] of
/// the keys `keys`; lse and delta are those of all seq query rows.
ANNULUS_API void reference_backward_keys(const ReferenceHead& head,
                                         std::span<const std::int64_t> keys, const double* lse,
                                         const double* delta, double* dk, double* dv);

}  // namespace annulus
