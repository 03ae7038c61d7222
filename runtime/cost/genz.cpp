// The GenZ accountings (tests/data/README.md: where the formulas were checked). They are copied
// faithfully, flaws included; docs/cost.md says what the flaws are.
#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"

#include <cmath>
#include <limits>

namespace annulus::cost {
namespace {

std::int64_t decode_pairs(const CostRequest& r, std::int64_t divisor) {
  // one query a beam group for the prompt (it is read once), one a beam for what was generated,
  // and only the prompt is divided
  const std::int64_t prompt = times(r.batch, r.prompt / divisor);
  return plus(prompt, product({r.batch, r.beam, r.generated}));
}

std::int64_t chunked_pairs(const CostRequest& r) {
  std::int64_t pairs = 0;
  for (const PrefillChunk& chunk : r.chunks) {
    pairs = plus(pairs, times(chunk.fresh, plus(chunk.past, chunk.fresh)));
  }
  for (const DecodeEntry& entry : r.decodes) {
    std::int64_t keys = entry.kv;
    if (entry.beams) {
      // divided by sp in both modes: the correction does not reach it
      keys = plus(times(entry.prompt_batch, entry.prompt / r.sp),
                  times(entry.decode_batch, entry.generated));
    }
    pairs = plus(pairs, times(entry.count, keys));
  }
  return times(r.batch, pairs);
}

/// Query-key pairs of one head as GenZ sees them, all sequences.
std::int64_t genz_pairs(const CostRequest& r, std::int64_t divisor) {
  switch (r.stage) {
    case Stage::prefill:
      return product({r.batch, r.seq, keys_of(r) / divisor});
    case Stage::decode:
      return decode_pairs(r, divisor);
    case Stage::chunked:
      return chunked_pairs(r);
  }
  return 0;
}

}  // namespace

std::int64_t scaled_count(std::int64_t count, double factor) {
  constexpr double kIntegers = 4503599627370496.0;  // 2^52: below it a double shows its fraction
  if (factor < kIntegers && factor == std::floor(factor)) {
    return times(count, static_cast<std::int64_t>(factor));
  }
  const long double value = std::nearbyint(static_cast<long double>(count) * factor);
  if (value >= static_cast<long double>(std::numeric_limits<std::int64_t>::max())) throw_overflow();
  return static_cast<std::int64_t>(value);
}

std::int64_t keys_of(const CostRequest& request) {
  return request.seq_kv < 0 ? request.seq : request.seq_kv;
}

std::int64_t heads_of_genz_rank(const CostRequest& request) {
  return ceil_div(request.heads, times(request.tp, request.ep));
}

MacAccounting genz_macs(const CostRequest& request, std::int64_t divisor) {
  const std::int64_t pairs = times(genz_pairs(request, divisor), heads_of_genz_rank(request));
  MacAccounting macs;
  macs.logit_macs_rank_layer = times(pairs, request.head_dim);
  macs.attend_macs_rank_layer = times(pairs, request.head_dim_v);
  macs.attention_macs_rank_model =
      times(request.layers, plus(macs.logit_macs_rank_layer, macs.attend_macs_rank_layer));
  return macs;
}

MacAccounting scaled(const MacAccounting& macs, const CostRequest& request) {
  // the layer is rounded, then multiplied, so that the columns add up for fractional factors too
  MacAccounting result;
  result.logit_macs_rank_layer = scaled_count(macs.logit_macs_rank_layer, request.softmax_factor);
  result.attend_macs_rank_layer = scaled_count(macs.attend_macs_rank_layer, request.softmax_factor);
  result.attention_macs_rank_model =
      times(request.layers, plus(result.logit_macs_rank_layer, result.attend_macs_rank_layer));
  return result;
}

}  // namespace annulus::cost
