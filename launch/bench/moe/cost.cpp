#include "launch/bench/moe/cost.h"

#include <annulus/annulus.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace annulus::launch {
namespace {

using Counts = std::vector<std::int64_t>;

std::int64_t sum(const Counts& counts) {
  return std::accumulate(counts.begin(), counts.end(), std::int64_t{0});
}

bool gated(const MoeReport& r) { return r.request.config.activation == moe::Activation::swiglu; }

bool dense(const MoeReport& r) { return r.request.routing == RoutingKind::none; }

/// The layer alone: what GenZ wants to know beside it changes none of the rows that are read.
LatencyRequest genz_request(const MoeReport& r, Stage stage) {
  const moe::LayerConfig& c = r.request.config;
  LatencyRequest request;
  request.stage = stage;
  request.model = {.hidden = c.hidden,
                   .ffn = r.request.dense_ffn,
                   .ffn_inputs = gated(r) ? 2 : 1,
                   .vocab = 1,
                   .layers = 1};
  request.system.tflops = request.system.memory_gib = 1;
  request.system.memory_gib_s = request.system.link_gib_s = 1;
  request.seq = r.request.tokens;
  if (stage == Stage::chunked) request.chunks = {{.past = 0, .fresh = r.request.tokens}};
  if (dense(r)) {
    request.sp = r.world;
    return request;
  }
  request.model.moe = {.experts = c.experts, .per_token = c.k, .ffn = c.ffn};
  if (c.shared_ffn > 0) {
    request.model.moe.shared = r.request.shared_experts;
    request.model.moe.shared_ffn = c.shared_ffn / r.request.shared_experts;
  }
  request.ep = r.request.options.expert_degree;
  request.sp = r.world / request.ep;
  return request;
}

GenzExperts genz(const MoeReport& r, Stage stage) {
  GenzExperts counts;
  if (r.request.config.experts == 1 && !dense(r)) return counts;  // GenZ has no such model
  for (const OperatorRow& row : estimate_latency(genz_request(r, stage)).rows) {
    const std::int64_t macs = row.repeat * row.macs;
    if (row.name == "Gate") counts.router_macs += macs;
    const bool mlp = row.name == "up+gate" || row.name == "up" || row.name == "down";
    if (mlp && !dense(r)) counts.expert_macs += macs;
    if ((mlp && dense(r)) || row.name.starts_with("shared ")) counts.shared_macs += macs;
  }
  return counts;
}

/// Forward products of `rows` pairs and `tokens` tokens.
std::int64_t exact_flops(const MoeReport& r, std::int64_t rows, std::int64_t tokens) {
  const moe::LayerConfig& c = r.request.config;
  const std::int64_t matrices = gated(r) ? 3 : 2;
  const std::int64_t routed = 2 * matrices * c.hidden * c.ffn * rows;
  const std::int64_t shared = 2 * matrices * c.hidden * c.shared_ffn * tokens;
  const std::int64_t router = c.router ? 2 * c.hidden * c.experts * tokens : 0;
  return routed + shared + router;
}

CostCheck check(const char* pass, const Counts& exact, const Counts& executed) {
  CostCheck check{.claim = fmt::format("executed {} >= exact", pass), .detail = {}};
  for (std::size_t rank = 0; rank < exact.size(); ++rank) {
    if (executed[rank] >= exact[rank]) continue;
    check.outcome = CostCheck::Outcome::failed;
    check.detail =
        fmt::format("rank {}: {} < {} FLOP; a product was left out or a counter is wrong.", rank,
                    executed[rank], exact[rank]);
    break;
  }
  return check;
}

std::string why_again(const MoeReport& r) {
  if (r.rounds > 1)
    return "rows came in rounds, of which backward computes the first products again";
  if (r.request.options.recompute != moe::Recompute::activation) {
    return "recompute: backward computes the first products again";
  }
  return "a kernel computes more than its rows";
}

void explain_genz(const MoeReport& r, std::vector<std::string>& reasons) {
  const MoeRequest& q = r.request;
  const moe::LayerConfig& c = q.config;
  if (dense(r)) return;
  if (c.experts == 1) {
    reasons.emplace_back("GenZ knows no layer of one expert: original is 0.");
    return;
  }
  if (q.dense_ffn != c.ffn) {
    reasons.push_back(fmt::format(
        "GenZ's prefill gives an expert the width of the dense FFN, {} instead of {}; its chunked "
        "step does not.",
        q.dense_ffn, c.ffn));
  }
  if (c.shared_ffn > 0) reasons.emplace_back("GenZ's prefill knows no shared experts.");
  if (!c.router) reasons.emplace_back("The routing was given: no router ran, GenZ counts one.");
  if (c.router && q.options.expert_degree > 1) {
    reasons.push_back(
        fmt::format("GenZ has each of {} expert-parallel ranks route the same tokens.",
                    q.options.expert_degree));
  }
  if (c.shared_ffn > 0 && q.options.expert_degree > 1) {
    reasons.push_back(
        fmt::format("GenZ's chunked step has each of {} expert-parallel ranks run the shared "
                    "experts for the same tokens.",
                    q.options.expert_degree));
  }
  const std::int64_t each = q.tokens * q.options.expert_degree / r.world * c.k;
  if (each % c.experts != 0) {
    reasons.push_back(fmt::format("GenZ gives every expert {} rows, {} // {}.", each / c.experts,
                                  each, c.experts));
  }
  if (r.dropped > 0) reasons.push_back(fmt::format("Capacity dropped {} pairs.", r.dropped));
}

}  // namespace

MoeCost cost_of(const MoeReport& r) {
  MoeCost cost;
  cost.original = genz(r, Stage::prefill);
  cost.original_chunked = genz(r, Stage::chunked);
  cost.mode =
      mode_of(r.request.mode, r.request.policy, dense(r) ? LayerKind::dense : LayerKind::moe);
  for (std::size_t rank = 0; rank < r.rank_rows.size(); ++rank) {
    cost.exact.push_back(exact_flops(r, r.rank_rows[rank], r.rank_tokens[rank]));
    cost.backward_exact.push_back(2 * cost.exact.back());
  }
  explain_genz(r, cost.reasons);
  cost.checks.push_back(check("forward", cost.exact, r.forward_flops));
  if (sum(r.forward_flops) > sum(cost.exact)) {
    cost.reasons.emplace_back("executed forward > exact: a kernel computes more than its rows.");
  }
  if (!r.backward) return cost;
  cost.checks.push_back(check("backward", cost.backward_exact, r.backward_flops));
  if (sum(r.backward_flops) > sum(cost.backward_exact)) {
    cost.reasons.push_back(fmt::format("executed backward > exact: {}.", why_again(r)));
  }
  return cost;
}

}  // namespace annulus::launch
