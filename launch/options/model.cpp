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
    if (settings.given(key)) return;
    settings.set(key, {.text = std::to_string(value),
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
  // Query i sees itself and the window - 1 keys before it. Used where mask names `window`.
  if (model.has("sliding_window")) {
    model.fill(settings, "window_left", "sliding_window", model.count("sliding_window") - 1);
  }
}

}  // namespace annulus::launch
