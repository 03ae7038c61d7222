#include "runtime/cost/accounting.h"

#include <nlohmann/json.hpp>

#include <numeric>

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

Json problem_json(const CostRequest& r) {
  Json json = {{"batch", r.batch},       {"heads", r.heads},           {"heads_kv", r.heads_kv},
               {"head_dim", r.head_dim}, {"head_dim_v", r.head_dim_v}, {"layers", r.layers}};
  if (r.stage == Stage::prefill) {
    json["seq"] = r.seq;
    json["seq_kv"] = r.seq_kv < 0 ? r.seq : r.seq_kv;
  } else if (r.stage == Stage::decode) {
    json["prompt"] = r.prompt;
    json["generated"] = r.generated;
    json["beam"] = r.beam;
  } else {
    json["chunks"] = Json::array();
    for (const PrefillChunk& chunk : r.chunks) {
      json["chunks"].push_back({{"past", chunk.past}, {"new", chunk.fresh}});
    }
    json["decode_kv"] = Json::array();
    for (const DecodeEntry& entry : r.decodes) {
      Json item = {{"count", entry.count}};
      if (entry.beams) {
        item.update({{"prompt_batch", entry.prompt_batch},
                     {"decode_batch", entry.decode_batch},
                     {"prompt", entry.prompt},
                     {"generated", entry.generated}});
      } else {
        item["kv"] = entry.kv;
      }
      json["decode_kv"].push_back(std::move(item));
    }
  }
  return json;
}

Json kinds_json(const CostRequest& r) {
  Json json = Json::array();
  for (const LayerGroup& group : cost::kinds_of(r)) {
    json.push_back({{"kind", name_of(group.kind)},
                    {"layers", group.count},
                    {"mode", name_of(mode_of(r.mode, r.policy, group.kind))}});
  }
  return json;
}

Json macs_json(const MacAccounting& macs) {
  return {{"logit_macs_rank_layer", macs.logit_macs_rank_layer},
          {"attend_macs_rank_layer", macs.attend_macs_rank_layer},
          {"attention_macs_rank_model", macs.attention_macs_rank_model}};
}

Json exact_json(const ExactAccounting& exact) {
  return {{"full_flops_group_layer", exact.full_flops_group_layer},
          {"masked_flops_group_layer", exact.masked_flops_group_layer},
          {"masked_flops_rank_layer", exact.masked_flops_rank_layer},
          {"backward_full_flops_group_layer", exact.backward_full_flops_group_layer},
          {"backward_masked_flops_group_layer", exact.backward_masked_flops_group_layer},
          {"backward_masked_flops_rank_layer", exact.backward_masked_flops_rank_layer}};
}

/// A pass that was not planned or run has no key; neither: null.
Json counted_json(const CountedFlops& counted) {
  Json json;
  if (!counted.flops_rank_layer.empty()) json["flops_rank_layer"] = counted.flops_rank_layer;
  if (!counted.backward_flops_rank_layer.empty()) {
    json["backward_flops_rank_layer"] = counted.backward_flops_rank_layer;
  }
  return json;
}

Json hardware_json(const CostReport& report) {
  const HardwareCounts& read = report.hardware;
  if (!read.available()) {
    return report.hardware_unavailable.empty() ? Json(nullptr)
                                               : Json{{"unavailable", report.hardware_unavailable}};
  }
  Json json;
  const auto add = [&](const char* key, const std::vector<std::int64_t>& counts) {
    if (!counts.empty()) json[key] = counts;
  };
  add("flops_rank_layer", read.flops_rank_layer);
  add("backward_flops_rank_layer", read.backward_flops_rank_layer);
  add("hbm_bytes_rank_layer", read.hbm_bytes_rank_layer);
  add("backward_hbm_bytes_rank_layer", read.backward_hbm_bytes_rank_layer);
  const std::vector<std::int64_t>& bytes = read.hbm_bytes_rank_layer;
  json["hbm_bytes"] = bytes.empty()
                          ? Json(nullptr)
                          : Json(std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0}));
  json["memory_efficiency"] =
      read.memory_efficiency > 0 ? Json(read.memory_efficiency) : Json(nullptr);
  json["source"] = read.source;
  return json;
}

Json checks_json(const CostReport& report) {
  Json json = Json::array();
  for (const CostCheck& check : self_checks(report)) {
    json.push_back(
        {{"claim", check.claim}, {"outcome", name_of(check.outcome)}, {"detail", check.detail}});
  }
  return json;
}

Json predicted_json(const CostReport& report) {
  const CostRequest& r = report.request;
  if (r.peak_tflops <= 0) return nullptr;
  return {{"attention_s", report.predicted_attention_s},
          {"accounting", r.policy == CostPolicy::uniform ? name_of(r.mode) : name_of(r.policy)},
          {"macs_rank_model", report.driving_macs_rank_model},
          {"peak_tflops", r.peak_tflops},
          {"peak_source", r.peak_source},
          {"source", "analytic"}};
}

}  // namespace

std::string to_json(const CostReport& report) {
  const CostRequest& r = report.request;
  Json json;
  json["schema"] = "annulus.cost/1";
  json["problem"] = problem_json(r);
  json["stage"] = name_of(r.stage);
  json["sp"] = r.sp;
  json["tp"] = r.tp;
  json["ep"] = r.ep;
  json["mode"] = name_of(r.mode);
  json["mode_source"] = r.mode_source;
  json["policy"] = name_of(r.policy);
  json["layer_kinds"] = kinds_json(r);
  json["softmax_factor"] = r.softmax_factor;
  json["original"] = macs_json(report.original);
  json["original_x3"] = macs_json(report.original_x3);
  json["corrected"] = macs_json(report.corrected);
  json["corrected_x3"] = macs_json(report.corrected_x3);
  json["exact"] = exact_json(report.exact);
  json["planned"] = counted_json(report.planned);
  json["executed"] = counted_json(report.executed);
  json["hardware"] = hardware_json(report);
  json["checks"] = checks_json(report);
  json["predicted"] = predicted_json(report);
  return json.dump(2, ' ', false, Json::error_handler_t::replace);
}

}  // namespace annulus
