#include "launch/options/value.h"
#include "launch/request/problem.h"
#include "launch/request/system.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::launch {
namespace {

/// What `parse` makes of a key's text; its complaint becomes a refusal of the key.
template <typename Parse>
auto parsed(const Settings& settings, std::string_view key, Parse parse) {
  decltype(parse(std::string_view())) list;
  if (!settings.has(key)) return list;
  try {
    list = parse(settings.text(key));
  } catch (const InvalidArgument& error) {
    settings.refuse(key, error.what());
  }
  return list;
}

void fill_prefill(const Settings& settings, CostRequest& request) {
  const Problem problem = resolved(problem_of(settings));
  request.seq = problem.seq;
  request.seq_kv = *problem.seq_kv;
  request.full_pairs = problem.seq * *problem.seq_kv;
  request.masked_pairs_by_rank = count_pairs_by_rank(
      problem, solve_layout(layout_of(settings), problem, static_cast<int>(request.sp)));
}

}  // namespace

std::vector<PrefillChunk> chunks_of(const Settings& settings) {
  std::vector<PrefillChunk> chunks = parsed(settings, "chunks", parse_chunks);
  if (settings.has("new")) {
    chunks.insert(chunks.begin(), {.past = settings.maybe_integer("past").value_or(0),
                                   .fresh = settings.integer("new")});
  }
  return chunks;
}

std::vector<DecodeEntry> decodes_of(const Settings& settings) {
  return parsed(settings, "decode_kv", parse_decode_entries);
}

CostRequest cost_keys_of(const Settings& settings) {
  CostRequest request;
  request.batch = settings.integer("batch");
  request.heads = settings.integer("heads");
  request.heads_kv = settings.maybe_integer("heads_kv").value_or(request.heads);
  request.head_dim = settings.integer("head_dim");
  request.head_dim_v = settings.maybe_integer("head_dim_v").value_or(request.head_dim);
  request.layers = settings.integer("layers");
  request.sp = settings.integer("sp");
  request.tp = settings.integer("tp");
  request.ep = settings.integer("ep");
  request.softmax_factor = settings.real("softmax_factor");
  request.mode = settings.text("mode") == "original" ? CostMode::original : CostMode::corrected;
  request.mode_source = settings.source("mode");
  request.policy = policy_of(settings);
  if (request.policy != CostPolicy::uniform) request.layer_kinds = layer_kinds_of(settings);
  if (request.policy != CostPolicy::uniform && request.layer_kinds.empty() &&
      settings.maybe_integer("experts").value_or(1) > 1) {
    request.layer_kinds = {{.kind = LayerKind::moe, .count = request.layers}};
  }
  if (settings.has("system")) fill_peak(settings, request);
  return request;
}

CostRequest cost_request_of(const Settings& settings) {
  const std::string& stage = settings.text("stage");
  layer_kinds_of(settings);  // a layer that nobody prices ends here
  CostRequest request = cost_keys_of(settings);
  if (stage == "prefill") {
    fill_prefill(settings, request);
  } else if (stage == "decode") {
    request.stage = Stage::decode;
    request.prompt = settings.integer("prompt");
    request.generated = settings.integer("generated");
    request.beam = settings.integer("beam");
  } else {
    request.stage = Stage::chunked;
    request.chunks = chunks_of(settings);
    request.decodes = decodes_of(settings);
    if (request.chunks.empty() && request.decodes.empty()) {
      settings.refuse("stage", "needs new (with past), chunks or decode_kv");
    }
  }
  return request;
}

}  // namespace annulus::launch
