#include "launch/request/latency.h"

#include "launch/options/sources.h"
#include "launch/request/problem.h"
#include "launch/request/system.h"

#include <fmt/format.h>

namespace annulus::launch {
namespace {

std::int64_t width(const Settings& settings, const char* key, const char* field) {
  if (!settings.has(key)) {
    throw UsageError(
        fmt::format("{}: required by {} (or --model with {})", option_of(key),
                    settings.has("legacy_model") ? "--legacy-model" : "--compare-modes", field));
  }
  return settings.integer(key);
}

ModelShape shape_of(const Settings& settings) {
  ModelShape model;
  model.heads = settings.integer("heads");
  model.heads_kv = settings.maybe_integer("heads_kv").value_or(model.heads);
  model.head_dim = settings.integer("head_dim");
  model.layers = settings.integer("layers");
  model.hidden = width(settings, "hidden", "hidden_size");
  model.ffn = width(settings, "ffn", "intermediate_size");
  model.vocab = width(settings, "vocab", "vocab_size");
  model.moe = experts_of(settings);
  model.layer_kinds = layer_kinds_of(settings);
  model.head_dim_v = settings.maybe_integer("head_dim_v").value_or(0);
  model.latent = {.q_rank = settings.maybe_integer("q_lora_rank").value_or(0),
                  .kv_rank = settings.maybe_integer("kv_lora_rank").value_or(0),
                  .rope = settings.maybe_integer("qk_rope_head_dim").value_or(0)};
  return model;
}

ModelSizeRequest size_request_of(const Settings& settings) { return {.model = shape_of(settings)}; }

/// GenZ has one width of a head and no latents: a model with others is priced by its own.
DimsRule rule_of(const Settings& settings, const ModelShape& model) {
  const bool others = model.value_dim() != model.head_dim || model.latent.kv_rank > 0;
  return others || settings.has("legacy_model") ? DimsRule::model : DimsRule::genz;
}

LatencyRequest shared_part(const Settings& settings) {
  if (!settings.has("system")) settings.refuse("system", "required by --compare-modes");
  LatencyRequest request;
  request.model = shape_of(settings);
  request.rule = rule_of(settings, request.model);
  request.system = system_of(settings);
  request.precision = precision_of(settings);
  request.batch = settings.integer("batch");
  request.tp = settings.integer("tp");
  request.sp = settings.integer("sp");
  request.pp = settings.integer("pp");
  request.ep = settings.integer("ep");
  if (request.ep > request.model.moe.experts) {
    settings.refuse("ep", fmt::format("is not allowed; allowed: 1 to {}, the experts",
                                      request.model.moe.experts));
  }
  request.policy = policy_of(settings);
  request.softmax_factor = settings.real("softmax_factor");
  request.offload = settings.flag("offload");
  return request;
}

}  // namespace

SizeComparison size_comparison_of(const Settings& settings) {
  Settings legacy;
  read_model(settings.path("legacy_model"), legacy);
  return {.model = size_request_of(settings), .legacy = size_request_of(legacy)};
}

std::vector<LatencyRequest> legacy_requests_of(const Settings& settings) {
  Settings legacy;
  read_model(settings.path("legacy_model"), legacy);
  std::vector<LatencyRequest> requests = latency_requests_of(settings);
  for (LatencyRequest& request : requests) {
    request.model = shape_of(legacy);
    request.rule = DimsRule::genz;
  }
  return requests;
}

std::vector<LatencyRequest> latency_requests_of(const Settings& settings) {
  LatencyRequest step = shared_part(settings);
  if (settings.text("stage") == "chunked") {
    step.stage = Stage::chunked;
    step.chunks = chunks_of(settings);
    step.decodes = decodes_of(settings);
    if (step.chunks.empty() && step.decodes.empty()) {
      settings.refuse("stage", "needs new (with past), chunks or decode_kv");
    }
    return {step};
  }
  LatencyRequest decode = step;
  const auto prompt = settings.maybe_integer("prompt");
  step.seq = prompt && !settings.has("seq") ? *prompt : settings.integer("seq");
  decode.stage = Stage::decode;
  decode.prompt = prompt.value_or(step.seq);
  decode.generated = settings.integer("generated");
  decode.beam = settings.integer("beam");
  return {step, decode};
}

}  // namespace annulus::launch
