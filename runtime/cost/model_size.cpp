// Weights of a model by kind of layer, from its shapes alone.
#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <annulus/model_size.h>

#include <fmt/format.h>

#include <string_view>

namespace annulus {
namespace {

using cost::plus;
using cost::product;
using cost::times;

void at_least(std::string_view name, std::int64_t value, std::int64_t least) {
  if (value < least) {
    throw InvalidArgument(fmt::format("{} {}: must be at least {}", name, value, least));
  }
}

void validate_sizes(const ModelSizeRequest& r) {
  const ModelShape& m = r.model;
  at_least("hidden", m.hidden, 1);
  at_least("heads", m.heads, 1);
  at_least("heads_kv", m.heads_kv, 1);
  at_least("head_dim", m.head_dim, 1);
  at_least("ffn", m.ffn, 1);
  at_least("ffn_inputs", m.ffn_inputs, 1);
  at_least("vocab", m.vocab, 1);
  at_least("layers", m.layers, 1);
  cost::validate_widths(m);
  cost::validate_experts(m.moe, 1);
  cost::validate_kinds(m);
}

std::int64_t attention_weights(const ModelSizeRequest& r) {
  const ModelShape& m = r.model;
  const std::int64_t out = product({m.heads, r.model.value_dim(), m.hidden});
  const std::int64_t queries = times(m.heads, m.head_dim);
  if (r.model.latent.kv_rank == 0) {
    const std::int64_t pairs = times(m.heads_kv, plus(m.head_dim, r.model.value_dim()));
    return plus(out, times(m.hidden, plus(queries, pairs)));
  }
  const LatentShape& l = m.latent;
  const std::int64_t q =
      l.q_rank == 0 ? times(m.hidden, queries) : times(l.q_rank, plus(m.hidden, queries));
  const std::int64_t down = times(m.hidden, plus(l.kv_rank, l.rope));
  const std::int64_t up =
      product({l.kv_rank, m.heads, plus(m.head_dim - l.rope, r.model.value_dim())});
  return plus(plus(out, q), plus(down, up));
}

/// Elements that one layer keeps of a token.
std::int64_t cached(const ModelSizeRequest& r) {
  if (r.model.latent.kv_rank > 0) return plus(r.model.latent.kv_rank, r.model.latent.rope);
  return times(r.model.heads_kv, plus(r.model.head_dim, r.model.value_dim()));
}

KindSize size_of_kind(const ModelSizeRequest& r, const LayerGroup& group) {
  const ModelShape& m = r.model;
  const auto mlp = [&](std::int64_t width) {
    return product({m.hidden, width, plus(m.ffn_inputs, 1)});
  };
  KindSize size{.kind = group.kind, .layers = group.count, .attention = attention_weights(r)};
  if (group.kind == LayerKind::dense) {
    size.ffn = size.active_ffn = mlp(m.ffn);
    return size;
  }
  const bool own = r.rule == DimsRule::model && m.moe.ffn > 0;
  const std::int64_t expert = mlp(own ? m.moe.ffn : m.ffn);
  std::int64_t always = times(m.hidden, m.moe.experts);  // the router
  if (r.rule == DimsRule::model) always = plus(always, times(m.moe.shared, mlp(m.moe.shared_ffn)));
  size.ffn = plus(always, times(m.moe.experts, expert));
  size.active_ffn = plus(always, times(m.moe.per_token, expert));
  return size;
}

std::vector<LayerGroup> groups_of(const ModelSizeRequest& r) {
  if (r.rule == DimsRule::model || r.model.moe.experts == 1) return cost::kinds_of(r.model);
  return {{.kind = LayerKind::moe, .count = r.model.layers}};
}

}  // namespace

ModelSize size_of(const ModelSizeRequest& request) {
  validate_sizes(request);
  ModelSize size;
  size.embedding = times(request.model.vocab, request.model.hidden);
  size.weights = times(2, size.embedding);
  size.active_weights = size.embedding;
  for (const LayerGroup& group : groups_of(request)) {
    const KindSize kind = size_of_kind(request, group);
    size.weights = plus(size.weights, times(kind.layers, plus(kind.attention, kind.ffn)));
    size.active_weights =
        plus(size.active_weights, times(kind.layers, plus(kind.attention, kind.active_ffn)));
    size.kinds.push_back(kind);
  }
  size.cache_elements = times(request.model.layers, cached(request));
  return size;
}

}  // namespace annulus
