#include "runtime/cost/format.h"
#include "runtime/cost/latency/operators.h"

#include <annulus/model_size.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

/// The three ways, in the order of the columns.
struct Sizes {
  ModelSize model;
  ModelSize genz;     ///< prefill and decode
  ModelSize chunked;  ///< GenZ knows expert_ffn and shared experts there
};

Sizes sizes_of(const SizeComparison& c) {
  ModelSizeRequest genz = c.legacy;
  genz.rule = DimsRule::genz;
  ModelSizeRequest chunked = c.legacy;
  chunked.rule = DimsRule::model;
  return {size_of(c.model), size_of(genz), size_of(chunked)};
}

std::string kinds_text(const ModelShape& m) {
  std::vector<std::string> parts;
  for (const LayerGroup& group : cost::kinds_of(m)) {
    parts.push_back(fmt::format("{} {}", group.count, name_of(group.kind)));
  }
  return fmt::format("{}", fmt::join(parts, " + "));
}

std::string head_text(const ModelSizeRequest& r) {
  return r.model.value_dim() == r.model.head_dim
             ? fmt::format("{}", r.model.head_dim)
             : fmt::format("{} (values {})", r.model.head_dim, r.model.value_dim());
}

std::string ratio(std::int64_t a, std::int64_t b) {
  return fmt::format("{:.4g}", static_cast<double>(a) / static_cast<double>(b));
}

void add_head(const SizeComparison& c, std::vector<std::string>& lines) {
  if (head_text(c.model) == head_text(c.legacy)) return;
  std::string why;
  if (c.legacy.model.head_dim == c.model.model.hidden / c.model.model.heads) {
    why = fmt::format(": GenZ takes hidden / heads, {} / {}", c.model.model.hidden,
                      c.model.model.heads);
  }
  lines.push_back(
      fmt::format("head_dim {} against {}{}.", head_text(c.model), head_text(c.legacy), why));
}

void add_cache(const SizeComparison& c, const Sizes& s, std::vector<std::string>& lines) {
  if (s.model.cache_elements == s.genz.cache_elements) return;
  const auto layer = [](std::int64_t all, const ModelShape& m) { return all / m.layers; };
  lines.push_back(fmt::format(
      "{} cached elements a token and layer against {}: {} against {} key/value heads of head_dim.",
      layer(s.model.cache_elements, c.model.model), layer(s.genz.cache_elements, c.legacy.model),
      c.model.model.latent.kv_rank > 0
          ? fmt::format("one latent of {} + {}", c.model.model.latent.kv_rank,
                        c.model.model.latent.rope)
          : fmt::format("{}", c.model.model.heads_kv),
      c.legacy.model.heads_kv));
}

void add_layers(const SizeComparison& c, std::vector<std::string>& lines) {
  const bool moe = c.legacy.model.moe.experts > 1;
  const std::string legacy =
      moe ? fmt::format("{} moe", c.legacy.model.layers) : kinds_text(c.legacy.model);
  if (kinds_text(c.model.model) == legacy) return;
  lines.push_back(fmt::format("{} layers against {}: GenZ has one kind of layer a model.",
                              kinds_text(c.model.model), legacy));
}

void add_experts(const SizeComparison& c, const Sizes& s, std::vector<std::string>& lines) {
  const ExpertShape& ours = c.model.model.moe;
  const ExpertShape& legacy = c.legacy.model.moe;
  if (ours.ffn > 0 && ours.ffn != c.legacy.model.ffn) {
    lines.push_back(fmt::format(
        "Experts {} wide against {} in prefill and decode, where GenZ gives each the width of the "
        "dense FFN: {} times the weights of the model. In chunked steps it has {}.",
        ours.ffn, c.legacy.model.ffn, ratio(s.genz.weights, s.model.weights),
        legacy.ffn == 0 ? c.legacy.model.ffn : legacy.ffn));
  }
  if (ours.shared > 0) {
    lines.push_back(fmt::format(
        "{} shared expert(s) of width {} against none in prefill and decode, and {} of width {} in "
        "chunked steps.",
        ours.shared, ours.shared_ffn, legacy.shared, legacy.shared_ffn));
  }
}

Json size_json(const ModelSize& size) {
  Json kinds = Json::array();
  for (const KindSize& kind : size.kinds) {
    kinds.push_back({{"kind", name_of(kind.kind)},
                     {"layers", kind.layers},
                     {"attention_weights_layer", kind.attention},
                     {"ffn_weights_layer", kind.ffn},
                     {"active_ffn_weights_layer", kind.active_ffn}});
  }
  return {{"kinds", kinds},
          {"embedding_weights", size.embedding},
          {"weights", size.weights},
          {"active_weights", size.active_weights},
          {"macs_token", size.active_weights},
          {"cache_elements_token", size.cache_elements}};
}

/// Weights of one layer of a kind; "-" where there is none.
std::string of_kind(const ModelSize& size, LayerKind kind, std::int64_t KindSize::*part) {
  for (const KindSize& k : size.kinds) {
    if (k.kind == kind) return cost::human(static_cast<long double>(k.*part), "");
  }
  return "-";
}

}  // namespace

std::vector<std::string> differences(const SizeComparison& comparison) {
  const Sizes sizes = sizes_of(comparison);
  std::vector<std::string> lines;
  add_head(comparison, lines);
  add_cache(comparison, sizes, lines);
  add_layers(comparison, lines);
  add_experts(comparison, sizes, lines);
  return lines;
}

std::string to_text(const SizeComparison& c) {
  const Sizes s = sizes_of(c);
  std::vector<cost::TextRow> rows{{"weights", "the model", "GenZ prefill, decode", "GenZ chunked"}};
  const auto total = [&](const char* name, std::int64_t ModelSize::*part) {
    rows.push_back({name, cost::human(static_cast<long double>(s.model.*part), ""),
                    cost::human(static_cast<long double>(s.genz.*part), ""),
                    cost::human(static_cast<long double>(s.chunked.*part), "")});
  };
  const auto layer = [&](const char* name, LayerKind kind, std::int64_t KindSize::*part) {
    rows.push_back({name, of_kind(s.model, kind, part), of_kind(s.genz, kind, part),
                    of_kind(s.chunked, kind, part)});
  };
  total("all", &ModelSize::weights);
  total("active, MAC a token", &ModelSize::active_weights);
  total("cache, elements a token", &ModelSize::cache_elements);
  layer("dense layer: attention", LayerKind::dense, &KindSize::attention);
  layer("dense layer: FFN", LayerKind::dense, &KindSize::ffn);
  layer("moe layer: attention", LayerKind::moe, &KindSize::attention);
  layer("moe layer: FFN", LayerKind::moe, &KindSize::ffn);
  layer("moe layer: active FFN", LayerKind::moe, &KindSize::active_ffn);
  std::string text =
      fmt::format("Model sizes: {} layers, {} of {} experts a token\n\n", kinds_text(c.model.model),
                  c.model.model.moe.per_token, c.model.model.moe.experts) +
      cost::table(std::move(rows), 1) + "\n";
  for (const std::string& line : differences(c)) text += cost::paragraph("differs", line);
  return text;
}

std::string to_json(const SizeComparison& c) {
  const Sizes s = sizes_of(c);
  const Json json{{"schema", "annulus.sizes/1"},
                  {"model", size_json(s.model)},
                  {"genz_prefill_decode", size_json(s.genz)},
                  {"genz_chunked", size_json(s.chunked)},
                  {"differences", differences(c)}};
  return json.dump();
}

}  // namespace annulus
