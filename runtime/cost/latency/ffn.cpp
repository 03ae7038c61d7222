// The FFN of GenZ at commit 091bdd0, dense or of experts, from the formulas in
// tests/data/README.md; faithful, flaws included (docs/cost.md lists them).
#include "runtime/cost/latency/row_list.h"

#include <algorithm>

namespace annulus::cost {
namespace {

/// What one rank holds and does of the routed experts.
struct Routed {
  std::int64_t held = 0;    ///< experts of the rank
  std::int64_t active = 0;  ///< of these, those that compute
  std::int64_t width = 0;   ///< of one expert, of one tp rank
  std::int64_t tokens = 0;  ///< of each active one
};

bool own_widths(const LatencyRequest& r) {
  return r.rule == DimsRule::model || r.stage == Stage::chunked;
}

bool is_deepseek_step(const LatencyRequest& r) {
  return r.stage == Stage::chunked && r.model.moe.ffn > 0;
}

Routed routed_of(const LatencyRequest& r, std::int64_t tokens, std::int64_t step) {
  const ExpertShape& moe = r.model.moe;
  Routed routed;
  routed.held = moe.experts / r.ep;
  routed.width = ceil_div(own_widths(r) && moe.ffn > 0 ? moe.ffn : r.model.ffn, r.tp);
  if (r.stage == Stage::decode) {
    routed.active = std::max<std::int64_t>(1, ceil_div(moe.per_token, r.ep));
    routed.tokens = 1;
  } else if (is_deepseek_step(r)) {
    const std::int64_t used = std::min(times(moe.per_token, step), moe.experts);
    routed.active = std::max<std::int64_t>(1, ceil_div(used, r.ep));
    routed.tokens = used == 0 ? 0 : times(tokens, moe.per_token) / used;
  } else {
    routed.active = routed.held;
    routed.tokens = times(tokens, moe.per_token) / moe.experts;
  }
  return routed;
}

void all_reduce(const LatencyRequest& r, const char* name, std::int64_t tokens, std::int64_t width,
                std::int64_t layers, RowList& rows) {
  if (r.tp > 1) rows.sync(name, Collective::all_reduce, r.tp, tokens, width, layers);
}

void exchange(const LatencyRequest& r, const char* name, std::int64_t tokens, std::int64_t layers,
              RowList& rows) {
  if (r.ep == 1) return;
  rows.sync(name, Collective::all_to_all, r.ep, tokens,
            times(r.model.moe.per_token, r.model.hidden), layers);
}

const char* up_name(const LatencyRequest& r) { return r.model.ffn_inputs > 1 ? "up+gate" : "up"; }

/// `experts` side by side, each `width` wide.
void mlp(const LatencyRequest& r, std::int64_t experts, std::int64_t width, std::int64_t tokens,
         Place place, std::int64_t layers, RowList& rows) {
  const std::int64_t all = times(experts, width);
  rows.gemm(up_name(r), times(all, r.model.ffn_inputs), tokens, r.model.hidden, place, layers);
  rows.gemm("down", r.model.hidden, tokens, all, place, layers);
}

void shared_experts(const LatencyRequest& r, std::int64_t tokens, std::int64_t layers,
                    RowList& rows) {
  const ExpertShape& moe = r.model.moe;
  if (moe.shared == 0 || (r.rule == DimsRule::genz && !is_deepseek_step(r))) return;
  const Place place = r.stage == Stage::decode ? Place::both_on_chip : Place::off_chip;
  const std::int64_t width = times(moe.shared, ceil_div(moe.shared_ffn, r.tp));
  rows.gemm(r.model.ffn_inputs > 1 ? "shared up+gate" : "shared up",
            times(width, r.model.ffn_inputs), tokens, r.model.hidden, place, layers);
  rows.gemm("shared down", r.model.hidden, tokens, width, place, layers);
}

void add_experts(const LatencyRequest& r, std::int64_t tokens, std::int64_t step,
                 std::int64_t layers, RowList& rows) {
  const ModelShape& m = r.model;
  const Routed routed = routed_of(r, tokens, step);
  rows.gemm("Gate", m.moe.experts, tokens, m.hidden / r.tp, Place::off_chip, layers);
  // The same sum, and GenZ sizes it differently by stage.
  all_reduce(r, "Gate AR", tokens, r.stage == Stage::decode ? m.hidden : m.moe.experts, layers,
             rows);
  exchange(r, "Dispatch A2A", tokens, layers, rows);
  mlp(r, routed.active, routed.width, routed.tokens,
      r.stage == Stage::decode ? Place::both_on_chip : Place::off_chip, layers, rows);
  if (routed.held > routed.active) {  // they take memory and no time
    mlp(r, routed.held - routed.active, routed.width, 0, Place::off_chip, layers, rows);
  }
  exchange(r, "Collect A2A", tokens, layers, rows);
  shared_experts(r, tokens, layers, rows);
}

}  // namespace

void add_ffn(const LatencyRequest& r, LayerKind kind, std::int64_t tokens, std::int64_t step,
             std::int64_t layers, RowList& rows) {
  if (kind == LayerKind::moe) {
    add_experts(r, tokens, step, layers, rows);
  } else {
    mlp(r, 1, ceil_div(r.model.ffn, r.tp), tokens,
        r.stage == Stage::decode ? Place::both_on_chip : Place::off_chip, layers, rows);
  }
  all_reduce(r, "FFN AR", tokens, r.model.hidden, layers, rows);
}

}  // namespace annulus::cost
