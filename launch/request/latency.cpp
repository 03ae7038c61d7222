#include "launch/request/latency.h"

#include "launch/request/problem.h"
#include "launch/request/system.h"

#include <fmt/format.h>

namespace annulus::launch {
namespace {

std::int64_t width(const Settings& settings, const char* key, const char* field) {
  if (!settings.has(key)) {
    throw UsageError(fmt::format(
        "{}: required by --compare-modes (or --model with {} of a dense model; mixtures of "
        "experts are not built yet)",
        option_of(key), field));
  }
  return settings.integer(key);
}

ModelShape model_of(const Settings& settings) {
  ModelShape model;
  model.heads = settings.integer("heads");
  model.heads_kv = settings.maybe_integer("heads_kv").value_or(model.heads);
  model.head_dim = settings.integer("head_dim");
  model.layers = settings.integer("layers");
  if (settings.maybe_integer("head_dim_v").value_or(model.head_dim) != model.head_dim) {
    settings.refuse("head_dim_v", "differs from head_dim: GenZ's latencies know one width");
  }
  model.hidden = width(settings, "hidden", "hidden_size");
  model.ffn = width(settings, "ffn", "intermediate_size");
  model.vocab = width(settings, "vocab", "vocab_size");
  return model;
}

LatencyRequest shared_part(const Settings& settings) {
  if (!settings.has("system")) settings.refuse("system", "required by --compare-modes");
  LatencyRequest request;
  request.model = model_of(settings);
  request.system = system_of(settings);
  request.precision = precision_of(settings);
  request.batch = settings.integer("batch");
  request.tp = settings.integer("tp");
  request.sp = settings.integer("sp");
  request.pp = settings.integer("pp");
  if (settings.integer("ep") != 1) {
    settings.refuse("ep", "belongs to mixtures of experts, whose latencies are not built yet");
  }
  request.softmax_factor = settings.real("softmax_factor");
  request.offload = settings.flag("offload");
  return request;
}

}  // namespace

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
