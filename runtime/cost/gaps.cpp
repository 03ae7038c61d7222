#include "runtime/cost/gaps.h"
#include "runtime/cost/accounting.h"
#include "runtime/cost/format.h"

#include <fmt/format.h>

#include <numeric>

namespace annulus::cost {
namespace {

// Ratios only: sums over ranks may pass int64, so they are floating point and shown rounded.
using Real = long double;

Real real(std::int64_t value) { return static_cast<Real>(value); }

Real sum_of(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), Real{0},
                         [](Real sum, std::int64_t value) { return sum + real(value); });
}

std::string ratio(Real a, Real b) {
  return b == 0 ? std::string("undefined (0)") : fmt::format("{:.4g}", static_cast<double>(a / b));
}

/// FLOPs of a layer, over all ranks that the accounting counts for.
Real summed_over_ranks(const CostRequest& r, const MacAccounting& macs) {
  const Real layer = real(macs.logit_macs_rank_layer) + real(macs.attend_macs_rank_layer);
  return 2 * layer * real(r.tp) * real(r.ep) * real(r.sp);
}

std::string mask_gap(const CostReport& report) {
  const ExactAccounting& exact = report.exact;
  const std::string share =
      ratio(real(exact.masked_flops_group_layer), real(exact.full_flops_group_layer));
  if (report.request.stage == Stage::decode) {
    return paragraph("own key", fmt::format("exact masked / full = {}: masked counts the new "
                                            "token's own key, full does not.",
                                            share));
  }
  return paragraph(
      "causal, mask",
      fmt::format("exact masked / full = {}: the pairs that the mask leaves. GenZ has no mask.",
                  share));
}

std::string tile_gap(const CostReport& report) {
  const std::vector<std::int64_t>& executed = report.executed.flops_rank_layer;
  if (executed.empty()) {
    return paragraph(
        "tile padding",
        "executed / exact masked: not run. Tiles that the mask cuts are computed whole.");
  }
  const Real exact = real(masked_flops_of(report, executed, false));
  return paragraph("tile padding", fmt::format("executed / exact masked = {}: tiles that the mask "
                                               "cuts are computed whole.",
                                               ratio(sum_of(executed), exact)));
}

std::string replication_gap(const CostReport& report) {
  const CostRequest& r = report.request;
  const Real sum = summed_over_ranks(r, report.corrected);
  const std::string why =
      r.sp == 1 ? std::string("one sp rank, nothing is replicated along the sequence.")
                : fmt::format("corrected gives each of {} sp ranks the whole group's work.", r.sp);
  return paragraph("replication",
                   fmt::format("2 x corrected, summed over tp {} x ep {} x sp {} ranks = {} = {} x "
                               "exact full: {}",
                               r.tp, r.ep, r.sp, human(sum, "FLOP"),
                               ratio(sum, real(report.exact.full_flops_group_layer)), why));
}

std::string split_rule(const CostRequest& r) {
  if (r.sp == 1 && r.stage != Stage::decode) return "sp 1, nothing is divided.";
  switch (r.stage) {
    case Stage::prefill: {
      const std::int64_t keys = keys_of(r);
      std::string text =
          fmt::format("//sp drops {} mod {} = {} keys of every query.", keys, r.sp, keys % r.sp);
      if (keys < r.sp && keys > 0) text += " Fewer keys than sp ranks: it counts nothing at all.";
      return text;
    }
    case Stage::decode:
      return fmt::format(
          "//sp drops {} mod {} = {} prompt keys; the {} generated keys are not divided, so the "
          "sum "
          "has them x {}; the prompt counts one query for all beams ({}).",
          r.prompt, r.sp, r.prompt % r.sp, r.generated, r.sp, r.beam);
    case Stage::chunked:
      return fmt::format(
          "chunks and decode entries are not divided by sp (only the prompt of a "
          "4-tuple is), so the sum has them x {}.",
          r.sp);
  }
  return {};
}

std::string split_gap(const CostReport& report) {
  const Real sum = summed_over_ranks(report.request, report.original);
  return paragraph(
      "sp split",
      fmt::format("2 x original, summed over the same ranks = {} = {} x exact full: {}",
                  human(sum, "FLOP"), ratio(sum, real(report.exact.full_flops_group_layer)),
                  split_rule(report.request)));
}

std::string softmax_gap(const CostReport& report) {
  const CostRequest& r = report.request;
  const Real percent = 100 * Real{5} / (2 * (real(r.head_dim) + real(r.head_dim_v)));
  return paragraph(
      "softmax",
      fmt::format("x{} multiplies both matrix products ({:+.3g} %). Softmax is about 5 vector "
                  "operations a score: +{:.2g} % here, in no row.",
                  r.softmax_factor, (r.softmax_factor - 1) * 100, static_cast<double>(percent)));
}

std::string whole_gap(const CostReport& report) {
  const Real sum = summed_over_ranks(report.request, report.corrected_x3);
  return paragraph("all together",
                   fmt::format("2 x corrected x{}, summed over the same ranks = {} x exact masked.",
                               report.request.softmax_factor,
                               ratio(sum, real(report.exact.masked_flops_group_layer))));
}

std::string heads_gap(const CostReport& report) {
  const CostRequest& r = report.request;
  std::string text;
  const std::int64_t split = r.tp * r.ep;  // price() found that it fits
  if (r.heads % split != 0) {
    text += paragraph("heads", fmt::format("tp x ep = {} does not divide {} heads: GenZ counts "
                                           "ceil = {} on every rank.",
                                           split, r.heads, heads_of_genz_rank(r)));
  }
  if (r.heads % r.tp != 0) {
    text += paragraph("", fmt::format("by-rank rows are of a tp rank with {} heads, so times tp {} "
                                      "they pass the group's {}.",
                                      heads_of_tp_rank(r), r.tp, r.heads));
  }
  const std::int64_t kv = (r.heads_kv - 1) / split + 1;
  if (heads_of_genz_rank(r) % kv != 0) {
    text +=
        paragraph("", fmt::format("{} query and {} key/value heads on a rank: GenZ itself stops "
                                  "here; the count goes on.",
                                  heads_of_genz_rank(r), kv));
  }
  return text;
}

}  // namespace

std::int64_t masked_flops_of(const CostReport& report, const std::vector<std::int64_t>& flops,
                             bool backward) {
  const CostRequest& r = report.request;
  const ExactAccounting& exact = report.exact;
  if (r.tp > 1 && static_cast<Real>(flops.size()) == real(r.tp) * real(r.sp)) {
    return backward ? exact.backward_masked_flops_group_layer : exact.masked_flops_group_layer;
  }
  const std::vector<std::int64_t>& ranks =
      backward ? exact.backward_masked_flops_rank_layer : exact.masked_flops_rank_layer;
  return std::accumulate(ranks.begin(), ranks.end(), std::int64_t{0});
}

std::string gaps_text(const CostReport& report) {
  return mask_gap(report) + tile_gap(report) + replication_gap(report) + split_gap(report) +
         softmax_gap(report) + whole_gap(report) + heads_gap(report);
}

}  // namespace annulus::cost
