#include "launch/bench/json_parts.h"
#include "launch/bench/moe/cost.h"

#include <annulus/annulus.h>

#include <nlohmann/json.hpp>

#include <algorithm>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

template <typename T>
ordered_json maybe(const std::optional<T>& value) {
  return value ? ordered_json(*value) : ordered_json(nullptr);
}

ordered_json problem_json(const MoeReport& r) {
  const moe::LayerConfig& c = r.request.config;
  return {
      {"tokens", r.request.tokens},
      {"hidden", c.hidden},
      {"experts", c.experts},
      {"top_k", c.k},
      {"expert_ffn", c.ffn},
      {"shared_experts", r.request.shared_experts},
      {"shared_ffn", r.request.shared_experts > 0 ? c.shared_ffn / r.request.shared_experts : 0},
      {"activation", c.activation == moe::Activation::swiglu ? "swiglu" : "gelu"},
      {"dtype", name_of(c.dtype)},
      {"routing", name_of(r.request.routing)},
      {"router", r.request.router.empty() ? ordered_json(nullptr) : ordered_json(r.request.router)},
      {"capacity_factor",
       c.capacity.factor > 0 ? ordered_json(c.capacity.factor) : ordered_json(nullptr)}};
}

ordered_json load_json(const MoeReport& r) {
  return {{"expert_rows", r.expert_rows},
          {"rank_rows", r.rank_rows},
          {"expert_max_over_mean", r.expert_max_over_mean()},
          {"rank_max_over_mean", r.rank_max_over_mean()},
          {"unused_experts", std::ranges::count(r.expert_rows, 0)},
          {"dropped_pairs", r.dropped},
          {"bad_tokens", r.bad_tokens},
          {"capacity_rows", r.capacity_rows},
          {"rounds", r.rounds}};
}

/// What imbalance cost: the same layer and tokens with a balanced routing.
ordered_json imbalance_json(const MoeReport& r) {
  return {{"without_router_forward", timing_json(r.kept_forward)},
          {"without_router_backward", timing_json(r.kept_backward)},
          {"balanced_forward", timing_json(r.balanced_forward)},
          {"balanced_backward", timing_json(r.balanced_backward)},
          {"forward_over_balanced", maybe(r.forward_slowdown())},
          {"backward_over_balanced", maybe(r.backward_slowdown())}};
}

ordered_json comm_json(const MoeReport& r) {
  std::vector<std::int64_t> sent = r.forward_bytes;
  for (std::size_t i = 0; i < sent.size(); ++i) sent[i] += r.backward_bytes[i];
  return {{"bytes_sent_per_rank", std::ranges::max(sent)},
          {"bytes_sent_by_rank", sent},
          {"forward_bytes_sent_by_rank", r.forward_bytes},
          {"backward_bytes_sent_by_rank", r.backward_bytes},
          {"dispatch", r.sent_tokens ? "tokens" : "rows"},
          {"exposed_s", r.exposed_s}};
}

ordered_json parts(const MoeReport& r) {
  return {{"problem", problem_json(r)},
          {"timing", {{"forward", timing_json(r.forward)}, {"backward", timing_json(r.backward)}}},
          {"throughput",
           {{"forward_tflops_per_rank", tflops_per_rank(r.forward, r.forward_flops)},
            {"backward_tflops_per_rank", tflops_per_rank(r.backward, r.backward_flops)}}},
          {"check", check_json(r.check)},
          {"load", load_json(r)},
          {"imbalance", imbalance_json(r)},
          {"memory",
           {{"planned_peak_bytes", r.planned_peak_bytes},
            {"measured_peak_bytes", r.measured_peak_bytes}}},
          {"comm", comm_json(r)},
          {"cost", ordered_json::parse(cost_json(r))}};
}

}  // namespace

std::string moe_json(const MoeReport& r) {
  ordered_json json = parts(r);
  json["expert_degree"] = r.request.options.expert_degree;
  return json.dump();
}

std::string to_json(const MoeReport& r) {
  ordered_json json{{"schema", "annulus.bench/1"}, {"op", "moe"}};
  const ordered_json all = parts(r);
  json["problem"] = all.at("problem");
  json["parallel"] = {{"world", r.world},
                      {"expert_degree", r.request.options.expert_degree},
                      {"transport", r.transport}};
  json["device"] = {{"backend", r.backend}, {"name", r.device}, {"count", r.world}};
  json["kernel"] = {{"used", r.kernel}, {"fallback_reason", nullptr}};
  for (const char* part :
       {"timing", "throughput", "check", "load", "imbalance", "memory", "comm", "cost"}) {
    json[part] = all.at(part);
  }
  json["environment"] = environment_json(r.mpi, r.request.options.threads, r.command_line);
  return json.dump();  // one line, so that the points of a grid are lines
}

}  // namespace annulus::launch
