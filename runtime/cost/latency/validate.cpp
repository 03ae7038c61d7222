#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus {
namespace cost {
namespace {

void at_least(std::string_view name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(fmt::format("{} {}: must be at least {}", name, value, least));
  }
}

void above_zero(std::string_view name, double value) {
  if (!std::isfinite(value) || value <= 0) {
    throw InvalidArgument(fmt::format("{} {}: must be finite and above 0", name, value));
  }
}

void validate_model(const ModelShape& m) {
  at_least("hidden", m.hidden, 1);
  at_least("heads", m.heads, 1);
  at_least("heads_kv", m.heads_kv, 1);
  at_least("head_dim", m.head_dim, 1);
  validate_widths(m);
  at_least("ffn", m.ffn, 1);
  at_least("ffn_inputs", m.ffn_inputs, 1);
  at_least("vocab", m.vocab, 1);
  at_least("layers", m.layers, 1);
  if (m.heads % m.heads_kv != 0) {
    throw InvalidArgument(
        fmt::format("heads {} is no multiple of heads_kv {}", m.heads, m.heads_kv));
  }
}

void validate_system(const SystemRates& s) {
  above_zero("tflops", s.tflops);
  above_zero("memory_gib", s.memory_gib);
  above_zero("memory_gib_s", s.memory_gib_s);
  above_zero("link_gib_s", s.link_gib_s);
  above_zero("link_latency_us", s.link_latency_us);
  above_zero("onchip_gib_s", s.onchip_gib_s);
  above_zero("host_gib_s", s.host_gib_s);
  above_zero("efficiency", s.efficiency);
}

void validate_sizes(const LatencyRequest& r) {
  at_least("batch", r.batch, 1);
  at_least("seq", r.seq, 0);
  at_least("prompt", r.prompt, 0);
  at_least("generated", r.generated, 0);
  at_least("beam", r.beam, 1);
  for (const PrefillChunk& chunk : r.chunks) {
    at_least("chunk past", chunk.past, 0);
    at_least("chunk new", chunk.fresh, 0);
  }
  for (const DecodeEntry& entry : r.decodes) {
    at_least("decode entry count", entry.count, 1);
    for (const std::int64_t size :
         {entry.kv, entry.prompt_batch, entry.decode_batch, entry.prompt, entry.generated}) {
      at_least("decode entry size", size, 0);
    }
  }
}

}  // namespace

void validate_widths(const ModelShape& m) {
  at_least("head_dim_v", m.head_dim_v, 0);
  at_least("q_lora_rank", m.latent.q_rank, 0);
  at_least("kv_lora_rank", m.latent.kv_rank, 0);
  at_least("qk_rope_head_dim", m.latent.rope, 0);
  if (m.latent.rope > m.head_dim) {
    throw InvalidArgument(
        fmt::format("qk_rope_head_dim {}: head_dim is {}", m.latent.rope, m.head_dim));
  }
}

void validate_experts(const ExpertShape& moe, std::int64_t ep) {
  at_least("experts", moe.experts, 1);
  if (moe.experts == 1) {
    if (ep != 1) throw InvalidArgument(fmt::format("ep {}: the model has no experts", ep));
    return;
  }
  at_least("experts per token", moe.per_token, 1);
  if (moe.per_token > moe.experts) {
    throw InvalidArgument(
        fmt::format("experts per token {}: there are {} experts", moe.per_token, moe.experts));
  }
  if (ep > moe.experts) {
    throw InvalidArgument(fmt::format("ep {}: there are {} experts", ep, moe.experts));
  }
  at_least("expert_ffn", moe.ffn, 0);
  at_least("shared_experts", moe.shared, 0);
  at_least("shared_ffn", moe.shared_ffn, moe.shared > 0 ? 1 : 0);
}

void validate_kinds(const ModelShape& m) {
  std::int64_t sum = 0;
  for (const LayerGroup& group : m.layer_kinds) {
    at_least("layers of a kind", group.count, 1);
    sum = plus(sum, group.count);
    if (group.kind == LayerKind::moe && m.moe.experts == 1) {
      throw InvalidArgument("layer_kinds: moe layers need experts, there are none");
    }
  }
  if (!m.layer_kinds.empty() && sum != m.layers) {
    throw InvalidArgument(fmt::format("layer_kinds: {} layers, the model has {}", sum, m.layers));
  }
}

void validate(const LatencyRequest& r) {
  validate_model(r.model);
  validate_system(r.system);
  validate_sizes(r);
  at_least("tp", r.tp, 1);
  at_least("ep", r.ep, 1);
  at_least("sp", r.sp, 1);
  at_least("pp", r.pp, 1);
  above_zero("softmax_factor", r.softmax_factor);
  validate_experts(r.model.moe, r.ep);
  validate_kinds(r.model);
  if (r.pp > r.model.layers) {
    throw InvalidArgument(fmt::format("pp {}: the model has {} layers", r.pp, r.model.layers));
  }
  // GenZ goes on with a negative last stage here: 9 layers on 8 stages of 2 leave it -5.
  if (layers_by_stage(r).back() < 1) {
    throw InvalidArgument(fmt::format("pp {}: {} layers at {} a stage leave the last stage {}",
                                      r.pp, r.model.layers, ceil_div(r.model.layers, r.pp),
                                      layers_by_stage(r).back()));
  }
}

}  // namespace cost
}  // namespace annulus
