#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"

#include <fmt/format.h>

#include <cmath>
#include <string_view>

namespace annulus::cost {
namespace {

// by-rank lists have sp entries; a typing error must not ask for terabytes
constexpr std::int64_t kMaxSp = std::int64_t{1} << 20;

void at_least(std::string_view name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(fmt::format("{} {}: must be at least {}", name, value, least));
  }
}

void validate_model(const CostRequest& r) {
  at_least("batch", r.batch, 0);
  at_least("heads", r.heads, 1);
  at_least("heads_kv", r.heads_kv, 1);
  at_least("head_dim", r.head_dim, 1);
  at_least("head_dim_v", r.head_dim_v, 1);
  at_least("layers", r.layers, 1);
  if (r.heads % r.heads_kv != 0) {
    throw InvalidArgument(
        fmt::format("heads {} is no multiple of heads_kv {}", r.heads, r.heads_kv));
  }
}

void validate_kinds(const CostRequest& r) {
  if (r.layer_kinds.empty()) return;
  std::int64_t sum = 0;
  for (const LayerGroup& group : r.layer_kinds) {
    at_least("layers of a kind", group.count, 1);
    sum = plus(sum, group.count);
  }
  if (sum != r.layers) {
    throw InvalidArgument(fmt::format("layer_kinds: {} layers, the model has {}", sum, r.layers));
  }
}

void validate_deployment(const CostRequest& r) {
  at_least("sp", r.sp, 1);
  at_least("tp", r.tp, 1);
  at_least("ep", r.ep, 1);
  if (r.sp > kMaxSp) throw InvalidArgument(fmt::format("sp {}: must be at most {}", r.sp, kMaxSp));
  if (!std::isfinite(r.softmax_factor) || r.softmax_factor <= 0) {
    throw InvalidArgument(
        fmt::format("softmax_factor {}: must be finite and above 0", r.softmax_factor));
  }
  if (!std::isfinite(r.peak_tflops) || r.peak_tflops < 0) {
    throw InvalidArgument(fmt::format("peak_tflops {}: must be finite, 0 or above", r.peak_tflops));
  }
}

void validate_entry(const DecodeEntry& entry) {
  at_least("decode entry count", entry.count, 1);
  at_least("decode entry kv", entry.kv, 0);
  at_least("decode entry prompt_batch", entry.prompt_batch, entry.beams ? 1 : 0);
  at_least("decode entry decode_batch", entry.decode_batch, entry.beams ? 1 : 0);
  at_least("decode entry prompt", entry.prompt, 0);
  at_least("decode entry generated", entry.generated, 0);
}

void validate_stage(const CostRequest& r) {
  at_least("seq", r.seq, 0);
  at_least("seq_kv", r.seq_kv, -1);
  at_least("prompt", r.prompt, 0);
  at_least("generated", r.generated, 0);
  at_least("beam", r.beam, 1);
  for (const PrefillChunk& chunk : r.chunks) {
    at_least("chunk past", chunk.past, 0);
    at_least("chunk new", chunk.fresh, 0);
  }
  for (const DecodeEntry& entry : r.decodes) validate_entry(entry);
  if (r.stage == Stage::chunked && r.chunks.empty() && r.decodes.empty()) {
    throw InvalidArgument("stage chunked: give at least one chunk or decode entry");
  }
}

void validate_pairs(const CostRequest& r) {
  at_least("full_pairs", r.full_pairs, -1);
  if (r.masked_pairs_by_rank.empty()) return;
  const auto count = static_cast<std::int64_t>(r.masked_pairs_by_rank.size());
  if (count != r.sp) {
    throw InvalidArgument(
        fmt::format("masked_pairs_by_rank has {} entries, sp is {}", count, r.sp));
  }
  for (const std::int64_t pairs : r.masked_pairs_by_rank) {
    at_least("masked_pairs_by_rank entry", pairs, 0);
  }
}

}  // namespace

void validate(const CostRequest& request) {
  validate_model(request);
  validate_kinds(request);
  validate_deployment(request);
  validate_stage(request);
  validate_pairs(request);
}

}  // namespace annulus::cost
