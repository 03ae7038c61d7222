#include "launch/bench/moe/cost.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <numeric>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;
using Counts = std::vector<std::int64_t>;

ordered_json genz_json(const GenzExperts& g) {
  return {{"router_macs_rank_layer", g.router_macs},
          {"expert_macs_rank_layer", g.expert_macs},
          {"shared_macs_rank_layer", g.shared_macs},
          {"ffn_macs_rank_layer", g.ffn_macs()}};
}

ordered_json checks_json(const MoeCost& cost) {
  ordered_json json = ordered_json::array();
  for (const CostCheck& check : cost.checks) {
    json.push_back(
        {{"claim", check.claim}, {"outcome", name_of(check.outcome)}, {"detail", check.detail}});
  }
  return json;
}

std::int64_t sum(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

std::string line(const char* name, const char* unit, std::int64_t forward,
                 std::optional<std::int64_t> backward) {
  return fmt::format("  {:<18} {:<32} {:>20} {:>20}\n", name, unit, forward,
                     backward ? fmt::format("{}", *backward) : "-");
}

}  // namespace

std::string cost_text(const MoeReport& r) {
  const MoeCost cost = cost_of(r);
  const auto back = [&](const Counts& counts) {
    return r.backward ? std::optional(sum(counts)) : std::nullopt;
  };
  std::string text =
      fmt::format("cost       {:<40} {:>22} {:>20}\n", "of one layer's FFN", "forward", "backward");
  text += line("original", "MAC of a rank, GenZ's prefill", cost.original.ffn_macs(), {});
  text += line("original chunked", "MAC of a rank, its chunked step",
               cost.original_chunked.ffn_macs(), {});
  text += line("exact", "FLOP of all ranks", sum(cost.exact), back(cost.backward_exact));
  text += line("executed", "FLOP of all ranks", sum(r.forward_flops), back(r.backward_flops));
  text += line("bytes", "sent by all ranks", sum(r.forward_bytes), back(r.backward_bytes));
  for (const std::string& reason : cost.reasons) text += "  why        " + reason + "\n";
  for (const CostCheck& check : cost.checks) {
    text += check.outcome == CostCheck::Outcome::passed
                ? fmt::format("  check      {}: ok\n", check.claim)
                : fmt::format("  WARNING:   not {}: {}\n", check.claim, check.detail);
  }
  return text + fmt::format("  policy     {}: {} layers {} (which changes attention alone)\n",
                            name_of(r.request.policy),
                            r.request.routing == RoutingKind::none ? "dense" : "moe",
                            name_of(cost.mode));
}

std::string cost_json(const MoeReport& r) {
  const MoeCost cost = cost_of(r);
  const auto passes = [&](const char* key, const Counts& forward, const Counts& backward) {
    ordered_json json{{key, forward}};
    if (r.backward) json[std::string("backward_") + key] = backward;
    return json;
  };
  ordered_json bytes = passes("sent_rank_layer", r.forward_bytes, r.backward_bytes);
  bytes["dispatch"] = r.sent_tokens ? "tokens" : "rows";
  const ordered_json json{
      {"mode", name_of(cost.mode)},
      {"mode_source", r.request.mode_source},
      {"policy", name_of(r.request.policy)},
      {"original", genz_json(cost.original)},
      {"original_chunked", genz_json(cost.original_chunked)},
      {"exact", passes("flops_rank_layer", cost.exact, cost.backward_exact)},
      {"executed", passes("flops_rank_layer", r.forward_flops, r.backward_flops)},
      {"bytes", bytes},
      {"reasons", cost.reasons},
      {"checks", checks_json(cost)}};
  return json.dump();
}

}  // namespace annulus::launch
