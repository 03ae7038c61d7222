#include "launch/options/layers.h"
#include "launch/options/sources.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <fstream>

namespace annulus::launch {
namespace {

using nlohmann::json;

constexpr std::int64_t kMostOfAny = std::int64_t{1} << 32;

/// A Hugging Face config.json; messages name the file and the field.
class Model {
 public:
  explicit Model(const std::filesystem::path& file) : file_(file.string()) {
    std::error_code error;
    if (!std::filesystem::is_regular_file(file, error)) {
      throw UsageError(fmt::format("model: '{}' is not a regular file", file_));
    }
    std::ifstream stream(file);
    config_ = json::parse(stream, nullptr, false);
    if (config_.is_discarded() || !config_.is_object()) {
      throw UsageError(fmt::format("{}: is not a JSON object (cut off?)", file_));
    }
  }

  /// null counts as absent, as in Hugging Face's own files.
  bool has(const char* field) const {
    const auto found = config_.find(field);
    return found != config_.end() && !found->is_null();
  }

  std::int64_t count(const char* field) const {
    if (!has(field)) throw UsageError(fmt::format("{}: {}: missing", file_, field));
    const json& value = config_.at(field);
    if (!value.is_number_integer() || value > kMostOfAny || value < 1) {
      throw UsageError(fmt::format("{}: {}: '{}' is not allowed; allowed: a whole number from 1",
                                   file_, field, value.dump().substr(0, 40)));
    }
    return value.get<std::int64_t>();
  }

  std::string text(const char* field) const {
    return has(field) && config_.at(field).is_string() ? config_.at(field).get<std::string>() : "";
  }

  /// Of a mixture of experts, by the names that model families use; null: it is none.
  const char* experts_field() const {
    for (const char* field : {"num_local_experts", "n_routed_experts", "num_experts"}) {
      if (small(field, 1) > 1) return field;
    }
    return nullptr;
  }

  const json& config() const { return config_; }

  /// `preset` where the field is absent or of another type.
  std::int64_t small(const char* field, std::int64_t preset) const {
    const bool there = has(field) && config_.at(field).is_number_integer();
    return there ? config_.at(field).get<std::int64_t>() : preset;
  }

  std::int64_t head_dim() const {
    if (has("head_dim")) return count("head_dim");
    const std::int64_t hidden = count("hidden_size");
    const std::int64_t heads = count("num_attention_heads");
    if (hidden % heads != 0) {
      throw UsageError(
          fmt::format("{}: hidden_size: {} is no multiple of num_attention_heads {}; give head_dim",
                      file_, hidden, heads));
    }
    return hidden / heads;
  }

  /// Only where nobody gave the key.
  void fill(Settings& settings, const char* key, const char* field, std::int64_t value) const {
    fill(settings, key, field, std::to_string(value));
  }
  void fill(Settings& settings, const char* key, const char* field, const std::string& text) const {
    if (settings.given(key)) return;
    settings.set(key, {.text = text,
                       .origin = Origin::model,
                       .where = fmt::format("{}: {}", file_, field),
                       .folder = {}});
  }

 private:
  std::string file_;
  json config_;
};

/// Multi-head latent attention in its expanded form: every head has its own key and value.
void fill_latent(const Model& model, Settings& settings) {
  const std::int64_t heads = model.count("num_attention_heads");
  const std::int64_t nope = model.count("qk_nope_head_dim");
  const std::int64_t rope = model.count("qk_rope_head_dim");
  model.fill(settings, "heads_kv", "num_attention_heads", heads);
  model.fill(settings, "head_dim", "qk_nope_head_dim", nope + rope);
  model.fill(settings, "head_dim_v", "v_head_dim", model.count("v_head_dim"));
  for (const char* rank : {"q_lora_rank", "kv_lora_rank", "qk_rope_head_dim"}) {
    if (model.has(rank)) model.fill(settings, rank, rank, model.count(rank));
  }
}

/// Experts and their widths; a shared expert is as wide as a routed one unless the model says.
void fill_experts(const Model& model, Settings& settings) {
  const char* experts = model.experts_field();
  if (experts == nullptr) return;
  const auto take = [&](const char* key, const char* field) {
    if (model.has(field)) model.fill(settings, key, field, model.count(field));
  };
  take("experts", experts);
  take("top_k", "num_experts_per_tok");
  take("expert_ffn", "moe_intermediate_size");
  if (model.small("n_shared_experts", 0) > 0) {
    take("shared_experts", "n_shared_experts");
    take("shared_ffn", "moe_intermediate_size");
  }
  if (model.has("shared_expert_intermediate_size")) {
    model.fill(settings, "shared_experts", "shared_expert_intermediate_size", 1);
    take("shared_ffn", "shared_expert_intermediate_size");
  }
}

/// The router that a family has, and what its configuration says of it.
void fill_router(const Model& model, Settings& settings) {
  const std::string type = model.text("model_type");
  for (const char* family : {"mixtral", "qwen3_moe", "deepseek_v3"}) {
    if (type != family) continue;
    model.fill(settings, "router", "model_type", type == "qwen3_moe" ? "qwen3" : type);
  }
  if (model.has("n_group")) model.fill(settings, "groups", "n_group", model.count("n_group"));
  if (model.has("topk_group")) {
    model.fill(settings, "groups_kept", "topk_group", model.count("topk_group"));
  }
  const auto norm = model.config().find("norm_topk_prob");
  if (norm != model.config().end() && norm->is_boolean()) {
    model.fill(settings, "renormalize", "norm_topk_prob", norm->get<bool>() ? "true" : "false");
  }
}

/// What only latencies need; absent fields leave their keys open.
void fill_widths(const Model& model, Settings& settings) {
  if (model.has("hidden_size")) {
    model.fill(settings, "hidden", "hidden_size", model.count("hidden_size"));
  }
  if (model.has("vocab_size")) {
    model.fill(settings, "vocab", "vocab_size", model.count("vocab_size"));
  }
  if (model.has("intermediate_size")) {
    model.fill(settings, "ffn", "intermediate_size", model.count("intermediate_size"));
  }
  const std::string dtype = model.text("torch_dtype");
  if (dtype == "bfloat16" || dtype == "float16") {
    model.fill(settings, "precision", "torch_dtype", "bf16");
  } else if (dtype == "float32") {
    model.fill(settings, "precision", "torch_dtype", "f32");
  }
}

}  // namespace

void read_model(const std::filesystem::path& file, Settings& settings) {
  const Model model(file);
  const std::int64_t heads = model.count("num_attention_heads");
  model.fill(settings, "heads", "num_attention_heads", heads);
  model.fill(settings, "layers", "num_hidden_layers", model.count("num_hidden_layers"));
  if (model.has("kv_lora_rank")) {
    fill_latent(model, settings);
  } else {
    const bool grouped = model.has("num_key_value_heads");
    model.fill(settings, "heads_kv", grouped ? "num_key_value_heads" : "num_attention_heads",
               grouped ? model.count("num_key_value_heads") : heads);
    model.fill(settings, "head_dim", "head_dim", model.head_dim());
  }
  fill_widths(model, settings);
  fill_experts(model, settings);
  fill_router(model, settings);
  const std::string kinds = settings.given("layers") && settings.source("layers") != "model"
                                ? std::string()
                                : kinds_of_layers(model.config());
  if (!kinds.empty()) model.fill(settings, "layer_kinds", "its layers", kinds);
  // Query i sees itself and the window - 1 keys before it. Used where mask names `window`.
  if (model.has("sliding_window")) {
    model.fill(settings, "window_left", "sliding_window", model.count("sliding_window") - 1);
  }
}

}  // namespace annulus::launch
