// Which layers of a model are what. Families say it in different fields.
#include "launch/options/layers.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdint>

namespace annulus::launch {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostLayers = std::int64_t{1} << 20;

std::int64_t integer(const json& config, const char* field, std::int64_t preset) {
  const auto found = config.find(field);
  const bool fits = found != config.end() && found->is_number_integer() && *found >= -kMostLayers &&
                    *found <= kMostLayers;
  return fits ? found->get<std::int64_t>() : preset;
}

bool has_experts(const json& config) {
  return std::ranges::any_of(
      std::initializer_list<const char*>{"num_local_experts", "n_routed_experts", "num_experts"},
      [&](const char* field) { return integer(config, field, 1) > 1; });
}

/// Every period-th layer from offset on.
bool is_turn(const json& config, const char* period, const char* offset, std::int64_t layer) {
  const std::int64_t every = integer(config, period, 0);
  return every > 0 && layer % every == integer(config, offset, 0);
}

bool listed(const json& config, const char* field, std::int64_t layer) {
  const auto found = config.find(field);
  return found != config.end() && found->is_array() &&
         std::ranges::find(*found, json(layer)) != found->end();
}

/// The name of a layer that mixes tokens by something else than attention; empty: attention.
std::string other_mixer(const json& config, std::int64_t layer) {
  for (const char* field : {"layers_block_type", "layer_types"}) {
    const auto found = config.find(field);
    if (found == config.end() || !found->is_array()) continue;
    const auto index = static_cast<std::size_t>(layer);
    if (index >= found->size() || !found->at(index).is_string()) continue;
    const auto name = found->at(index).get<std::string>();
    return name == "attention" || name == "full_attention" || name == "sliding_attention" ? ""
                                                                                          : name;
  }
  const bool periodic = integer(config, "attn_layer_period", 0) > 0;
  return periodic && !is_turn(config, "attn_layer_period", "attn_layer_offset", layer) ? "mamba"
                                                                                       : "";
}

bool is_moe(const json& config, std::int64_t layer) {
  if (integer(config, "expert_layer_period", 0) > 0) {  // Jamba
    return is_turn(config, "expert_layer_period", "expert_layer_offset", layer);
  }
  if (listed(config, "mlp_only_layers", layer)) return false;  // Qwen
  const std::int64_t step = std::max<std::int64_t>(1, integer(config, "decoder_sparse_step", 1));
  const std::int64_t every = std::max<std::int64_t>(1, integer(config, "moe_layer_freq", 1));
  return layer >= integer(config, "first_k_dense_replace", 0) && layer % every == 0 &&
         (layer + 1) % step == 0;
}

/// A name from a file goes into a list that is read again.
std::string printable(const std::string& name) {
  std::string text = name.substr(0, 40);
  std::ranges::replace_if(
      text, [](char c) { return c == ',' || c == ':' || c <= ' ' || c > '~'; }, '_');
  return text.empty() ? "unnamed" : text;
}

}  // namespace

std::string kinds_of_layers(const json& config) {
  const std::int64_t layers = integer(config, "num_hidden_layers", 0);
  const bool experts = has_experts(config);
  std::string text;
  std::string kind;
  std::int64_t count = 0;
  bool all_dense = true;
  const auto close = [&] {
    if (count > 0) text += fmt::format("{}{}:{}", text.empty() ? "" : ",", kind, count);
  };
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const std::string mixer = other_mixer(config, layer);
    const std::string next = !mixer.empty()                     ? printable(mixer)
                             : experts && is_moe(config, layer) ? "moe"
                                                                : "dense";
    all_dense = all_dense && next == "dense";
    if (next != kind) {
      close();
      kind = next;
      count = 0;
    }
    ++count;
  }
  close();
  return all_dense ? std::string() : text;
}

}  // namespace annulus::launch
