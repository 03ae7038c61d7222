#include "runtime/cost/latency/operators.h"

#include <nlohmann/json.hpp>

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

Json experts_json(const ModelShape& m) {
  if (m.moe.experts == 1) return nullptr;
  return {{"experts", m.moe.experts},
          {"per_token", m.moe.per_token},
          {"ffn", m.moe.ffn == 0 ? m.ffn : m.moe.ffn},
          {"shared", m.moe.shared},
          {"shared_ffn", m.moe.shared_ffn}};
}

Json latent_json(const ModelShape& m) {
  if (m.latent.kv_rank == 0) return nullptr;
  return {{"q_rank", m.latent.q_rank}, {"kv_rank", m.latent.kv_rank}, {"rope", m.latent.rope}};
}

Json model_json(const ModelShape& m) {
  Json kinds = Json::array();
  for (const LayerGroup& group : cost::kinds_of(m)) {
    kinds.push_back({{"kind", name_of(group.kind)}, {"layers", group.count}});
  }
  return {{"hidden", m.hidden},
          {"heads", m.heads},
          {"heads_kv", m.heads_kv},
          {"head_dim", m.head_dim},
          {"ffn", m.ffn},
          {"ffn_inputs", m.ffn_inputs},
          {"vocab", m.vocab},
          {"layers", m.layers},
          {"layer_kinds", kinds},
          {"moe", experts_json(m)},
          {"head_dim_v", m.value_dim()},
          {"latent", latent_json(m)}};
}

Json system_json(const SystemRates& s) {
  return {{"name", s.name},
          {"tflops", s.tflops},
          {"memory_gib", s.memory_gib},
          {"memory_gib_s", s.memory_gib_s},
          {"link_gib_s", s.link_gib_s},
          {"link_latency_us", s.link_latency_us},
          {"onchip_gib_s", s.onchip_gib_s},
          {"host_gib_s", s.host_gib_s},
          {"efficiency", s.efficiency}};
}

Json row_json(const OperatorRow& row) {
  Json json{{"name", row.name},
            {"kind", name_of(row.kind)},
            {"repeat", row.repeat},
            {"macs", row.macs},
            {"input_elements", row.input_elements},
            {"weight_elements", row.weight_elements},
            {"output_elements", row.output_elements}};
  if (row.kind == OperatorKind::sync) {
    json["ranks"] = row.ranks;
    json["sent_elements"] = row.sent_elements;
  }
  json["compute_s"] = row.compute_s;
  json["memory_s"] = row.memory_s;
  json["comm_s"] = row.comm_s;
  json["latency_s"] = row.latency_s();
  json["bound"] = name_of(row.bound());
  return json;
}

Json report_json(const LatencyReport& report) {
  Json rows = Json::array();
  for (const OperatorRow& row : report.rows) rows.push_back(row_json(row));
  return {{"mode", name_of(report.request.mode)},
          {"softmax_factor", report.request.softmax_factor},
          {"latency_s", report.latency_s},
          {"attention_s", report.attention_s},
          {"linear_s", report.linear_s},
          {"comm_s", report.comm_s},
          {"macs_rank", report.macs},
          {"attention_macs_rank", report.attention_macs},
          {"weight_bytes", report.weight_bytes},
          {"cache_bytes", report.cache_bytes},
          {"fits", report.fits},
          {"offloaded", report.offloaded},
          {"memory_gib_s", report.memory_gib_s},
          {"micro_batch", report.micro_batch},
          {"throughput_per_s", report.throughput_per_s},
          {"operators", rows}};
}

std::string_view measure_of(Stage stage) {
  if (stage == Stage::prefill) return "time_to_first_token";
  return stage == Stage::decode ? "time_per_token" : "chunked_step";
}

Json stage_json(const ModeComparison& c) {
  const LatencyRequest& r = c.original.request;
  Json json{{"measure", measure_of(r.stage)}, {"stage", name_of(r.stage)}, {"batch", r.batch}};
  if (r.stage == Stage::prefill) json["seq"] = r.seq;
  if (r.stage == Stage::decode) {
    json["prompt"] = r.prompt;
    json["generated"] = r.generated;
    json["beam"] = r.beam;
  }
  json["upstream"] = report_json(c.upstream);
  json["original"] = report_json(c.original);
  json["corrected"] = report_json(c.corrected);
  if (c.by_policy) json["policy_legacy"] = report_json(*c.by_policy);
  json["attention_flops_ratio"] = c.attention_flops_ratio;
  json["flops_ratio"] = c.flops_ratio;
  json["time_ratio"] = c.time_ratio;
  json["others_equal"] = c.others_equal;
  json["reasons"] = c.reasons;
  return json;
}

}  // namespace

std::string to_json(const std::vector<ModeComparison>& stages) {
  Json json{{"schema", "annulus.latency/1"}};
  if (!stages.empty()) {
    const LatencyRequest& r = stages.front().original.request;
    json["system"] = system_json(r.system);
    json["model"] = model_json(r.model);
    json["dims"] = name_of(r.rule);
    json["precision"] = name_of(r.precision);
    json["tp"] = r.tp;
    json["ep"] = r.ep;
    json["sp"] = r.sp;
    json["pp"] = r.pp;
  }
  json["source"] = "analytic";
  json["stages"] = Json::array();
  for (const ModeComparison& c : stages) json["stages"].push_back(stage_json(c));
  return json.dump();
}

}  // namespace annulus
