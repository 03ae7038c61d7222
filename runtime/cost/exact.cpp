// Exact FLOPs: 2 a MAC, over the pairs that the mask leaves.
#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::cost {
namespace {

/// Causal, bottom right: the last `fresh` positions of `keys` see what is before them and
/// themselves. With more queries than keys the first ones see nothing.
std::int64_t causal_pairs(std::int64_t fresh, std::int64_t keys) {
  if (keys <= fresh) return triangle(keys);
  return plus(times(fresh, keys - fresh), triangle(fresh));
}

/// `self` is 1 where a new token's own key counts (masked) and 0 where it does not (full): the
/// goldens' two columns differ by it.
std::int64_t decode_entry_pairs(const DecodeEntry& entry, std::int64_t self) {
  if (!entry.beams) return times(entry.count, plus(entry.kv, self));
  const std::int64_t keys = plus(plus(entry.prompt, entry.generated), self);
  return product({entry.count, entry.decode_batch, keys});
}

std::int64_t chunked_pairs(const CostRequest& r, bool causal) {
  std::int64_t pairs = 0;
  for (const PrefillChunk& chunk : r.chunks) {
    const std::int64_t keys = plus(chunk.past, chunk.fresh);
    pairs = plus(pairs, causal ? causal_pairs(chunk.fresh, keys) : times(chunk.fresh, keys));
  }
  for (const DecodeEntry& entry : r.decodes) {
    pairs = plus(pairs, decode_entry_pairs(entry, causal ? 1 : 0));
  }
  return pairs;
}

/// Pairs of one head of one batch element (decode: of one beam).
std::int64_t stage_pairs(const CostRequest& r, bool causal) {
  switch (r.stage) {
    case Stage::prefill:
      return causal ? causal_pairs(r.seq, keys_of(r)) : times(r.seq, keys_of(r));
    case Stage::decode:
      return plus(plus(r.prompt, r.generated), causal ? 1 : 0);
    case Stage::chunked:
      return chunked_pairs(r, causal);
  }
  return 0;
}

std::int64_t sequences(const CostRequest& r) {
  return r.stage == Stage::decode ? times(r.batch, r.beam) : r.batch;
}

std::vector<std::int64_t> even_shares(std::int64_t total, std::int64_t ranks) {
  std::vector<std::int64_t> shares(static_cast<std::size_t>(ranks), total / ranks);
  std::for_each_n(shares.begin(), total % ranks, [](std::int64_t& share) { ++share; });
  return shares;
}

}  // namespace

std::int64_t heads_of_tp_rank(const CostRequest& request) {
  return ceil_div(request.heads, request.tp);
}

std::int64_t full_pairs(const CostRequest& request) {
  const std::int64_t pairs =
      request.full_pairs < 0 ? stage_pairs(request, false) : request.full_pairs;
  return times(sequences(request), pairs);
}

std::vector<std::int64_t> masked_pairs_by_rank(const CostRequest& request) {
  if (request.masked_pairs_by_rank.empty()) {
    return even_shares(times(sequences(request), stage_pairs(request, true)), request.sp);
  }
  std::vector<std::int64_t> pairs = request.masked_pairs_by_rank;
  for (std::int64_t& entry : pairs) entry = times(entry, sequences(request));
  return pairs;
}

ExactAccounting exact_flops(const CostRequest& request) {
  const std::vector<std::int64_t> by_rank = masked_pairs_by_rank(request);
  std::int64_t masked = 0;
  for (const std::int64_t pairs : by_rank) masked = plus(masked, pairs);
  const std::int64_t full = full_pairs(request);
  if (request.stage == Stage::prefill && masked > full) {
    throw InvalidArgument(fmt::format("{} unmasked pairs, but only {} pairs", masked, full));
  }
  // forward: scores (q k) and output (p v); backward: scores again, dp (do v), dv, dq, dk
  const std::int64_t forward = plus(request.head_dim, request.head_dim_v);
  const std::int64_t backward = plus(times(3, request.head_dim), times(2, request.head_dim_v));
  ExactAccounting exact;
  exact.full_flops_group_layer = product({2, request.heads, full, forward});
  exact.masked_flops_group_layer = product({2, request.heads, masked, forward});
  exact.backward_full_flops_group_layer = product({2, request.heads, full, backward});
  exact.backward_masked_flops_group_layer = product({2, request.heads, masked, backward});
  const std::int64_t heads = heads_of_tp_rank(request);
  for (const std::int64_t pairs : by_rank) {
    exact.masked_flops_rank_layer.push_back(product({2, heads, pairs, forward}));
    exact.backward_masked_flops_rank_layer.push_back(product({2, heads, pairs, backward}));
  }
  return exact;
}

}  // namespace annulus::cost
