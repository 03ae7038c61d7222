#include "runtime/cost/accounting.h"
#include "runtime/cost/format.h"
#include "runtime/cost/gaps.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <numeric>

namespace annulus {
namespace {

using cost::TextRow;

std::string count(std::int64_t value) { return fmt::format("{}", value); }

std::string entry_text(const DecodeEntry& entry) {
  const std::string prefix = entry.count == 1 ? "" : fmt::format("{}x", entry.count);
  if (!entry.beams) return fmt::format("{}{}", prefix, entry.kv);
  return fmt::format("{}{}/{}/{}/{}", prefix, entry.prompt_batch, entry.decode_batch, entry.prompt,
                     entry.generated);
}

std::string stage_text(const CostRequest& r) {
  if (r.stage == Stage::prefill) {
    const std::int64_t keys = cost::keys_of(r);
    return keys == r.seq ? fmt::format("seq {}", r.seq)
                         : fmt::format("seq {}, seq_kv {}", r.seq, keys);
  }
  if (r.stage == Stage::decode) {
    return fmt::format("prompt {}, generated {}, beam {}", r.prompt, r.generated, r.beam);
  }
  std::vector<std::string> chunks;
  for (const PrefillChunk& chunk : r.chunks) {
    chunks.push_back(fmt::format("{}:{}", chunk.past, chunk.fresh));
  }
  std::vector<std::string> decodes;
  for (const DecodeEntry& entry : r.decodes) decodes.push_back(entry_text(entry));
  return fmt::format("chunks [{}], decode_kv [{}]", fmt::join(chunks, ", "),
                     fmt::join(decodes, ", "));
}

std::string title(const CostRequest& r) {
  const std::string width = r.head_dim == r.head_dim_v
                                ? count(r.head_dim)
                                : fmt::format("{} (v {})", r.head_dim, r.head_dim_v);
  std::string text = fmt::format("Attention cost, {}\n", name_of(r.stage));
  text += cost::paragraph(
      "problem", fmt::format("batch {}, {}, heads {} (kv {}), head_dim {}, "
                             "layers {}",
                             r.batch, stage_text(r), r.heads, r.heads_kv, width, r.layers));
  text += cost::paragraph("deployment", fmt::format("sp {}, tp {}, ep {}", r.sp, r.tp, r.ep));
  return text;
}

TextRow mac_row(std::string name, const MacAccounting& macs) {
  const std::int64_t layer = macs.logit_macs_rank_layer + macs.attend_macs_rank_layer;
  return {std::move(name),
          "rank",
          "MAC",
          count(macs.logit_macs_rank_layer),
          count(macs.attend_macs_rank_layer),
          count(layer),
          count(macs.attention_macs_rank_model),
          cost::human(static_cast<long double>(macs.attention_macs_rank_model), "MAC")};
}

// A model's total may pass int64 where a layer's does not: it is in no report, so it is not an
// error.
std::string model_count(std::int64_t layer, const CostRequest& r) {
  std::int64_t model = 0;
  return __builtin_mul_overflow(layer, r.layers, &model) ? ">= 2^63" : count(model);
}

long double model_flops(std::int64_t layer, const CostRequest& r) {
  return static_cast<long double>(layer) * static_cast<long double>(r.layers);
}

TextRow forward_row(std::string name, std::int64_t layer, const CostRequest& r) {
  // layer is a multiple of the summed widths
  const std::int64_t pairs = layer / (r.head_dim + r.head_dim_v);
  return {std::move(name),
          "group",
          "FLOP",
          count(pairs * r.head_dim),
          count(pairs * r.head_dim_v),
          count(layer),
          model_count(layer, r),
          cost::human(model_flops(layer, r), "FLOP")};
}

TextRow backward_row(std::string name, std::int64_t layer, const CostRequest& r) {
  return {std::move(name),
          "group",
          "FLOP",
          "-",
          "-",
          count(layer),
          model_count(layer, r),
          cost::human(model_flops(layer, r), "FLOP")};
}

std::string accountings(const CostReport& report) {
  const CostRequest& r = report.request;
  const bool corrected = r.mode == CostMode::corrected;
  const std::string factor = fmt::format("x{}", r.softmax_factor);
  std::vector<TextRow> rows;
  rows.push_back({"accounting", "basis", "unit", "logit", "attend", "layer", "model", "model ~"});
  const bool uniform = r.policy == CostPolicy::uniform;
  rows.push_back(
      mac_row(corrected || !uniform ? "original //sp" : "original //sp *", report.original));
  rows.push_back(mac_row("original " + factor, report.original_x3));
  rows.push_back(mac_row(corrected && uniform ? "corrected *" : "corrected", report.corrected));
  rows.push_back(mac_row("corrected " + factor, report.corrected_x3));
  const ExactAccounting& exact = report.exact;
  rows.push_back(forward_row("exact full", exact.full_flops_group_layer, r));
  rows.push_back(forward_row("exact masked", exact.masked_flops_group_layer, r));
  if (r.stage == Stage::prefill) {  // the other stages are inference
    rows.push_back(backward_row("exact full bwd", exact.backward_full_flops_group_layer, r));
    rows.push_back(backward_row("exact masked bwd", exact.backward_masked_flops_group_layer, r));
  }
  return cost::table(std::move(rows), 3);
}

TextRow rank_row(std::string name, std::string_view pass, const std::vector<std::int64_t>& flops,
                 std::string_view missing, std::string_view unit = "FLOP") {
  TextRow row = {std::move(name), "rank", std::string(unit), std::string(pass)};
  if (flops.empty()) {
    row.insert(row.end(), {std::string(missing), "-", "-", "-", "-"});
    return row;
  }
  const auto [least, most] = std::minmax_element(flops.begin(), flops.end());
  const long double sum = std::accumulate(flops.begin(), flops.end(), 0.0L);
  const long double mean = sum / static_cast<long double>(flops.size());
  const double imbalance =
      mean > 0 ? static_cast<double>(static_cast<long double>(*most) / mean) : 1;
  row.insert(row.end(), {count(*least), fmt::format("{:.0f}", static_cast<double>(mean)),
                         count(*most), fmt::format("{:.3f}", imbalance),
                         cost::human(static_cast<long double>(*most), unit)});
  return row;
}

void add_counted(std::vector<TextRow>& rows, const std::string& name, const CountedFlops& counted,
                 std::string_view missing) {
  rows.push_back(rank_row(name, "forward", counted.flops_rank_layer, missing));
  if (counted.backward_flops_rank_layer.empty()) return;
  rows.push_back(rank_row(name, "backward", counted.backward_flops_rank_layer, missing));
}

void add_hardware(std::vector<TextRow>& rows, const HardwareCounts& read) {
  const auto add = [&](const char* name, const char* pass, const char* unit,
                       const std::vector<std::int64_t>& counts) {
    if (!counts.empty()) rows.push_back(rank_row(name, pass, counts, "", unit));
  };
  add("hardware", "forward", "FLOP", read.flops_rank_layer);
  add("hardware", "backward", "FLOP", read.backward_flops_rank_layer);
  add("hardware hbm", "forward", "B", read.hbm_bytes_rank_layer);
  add("hardware hbm", "backward", "B", read.backward_hbm_bytes_rank_layer);
}

std::string hardware_text(const CostReport& report) {
  const HardwareCounts& read = report.hardware;
  const std::string& reason = report.hardware_unavailable;
  if (!read.available()) {
    return fmt::format("hardware: unavailable: {}\n", reason.empty() ? "not asked for" : reason);
  }
  std::string text = cost::paragraph("hardware:", read.source);
  if (read.memory_efficiency > 0) {
    text += cost::paragraph("memory",
                            fmt::format("efficiency {:.2f}: HBM bytes of naive over this kernel's",
                                        read.memory_efficiency));
  }
  return text;
}

std::string by_rank(const CostReport& report) {
  const ExactAccounting& exact = report.exact;
  std::vector<TextRow> rows;
  rows.push_back(
      {"one layer, by rank", "basis", "unit", "pass", "min", "mean", "max", "max/mean", "max ~"});
  rows.push_back(rank_row("exact masked", "forward", exact.masked_flops_rank_layer, ""));
  if (report.request.stage == Stage::prefill) {
    rows.push_back(
        rank_row("exact masked", "backward", exact.backward_masked_flops_rank_layer, ""));
  }
  add_counted(rows, "planned", report.planned, "no plan");
  add_counted(rows, "executed", report.executed, "not run");
  add_hardware(rows, report.hardware);
  std::string text = cost::table(std::move(rows), 4);
  return text + hardware_text(report);
}

std::string legend(const CostRequest& r) {
  std::string text = cost::paragraph(
      "basis",
      "rank = one rank (MAC rows: ceil(heads / (tp x ep)) heads; by-rank rows: the sp ranks "
      "of one tp rank); group = all tp x sp ranks together.");
  text += cost::paragraph("unit",
                          "1 MAC (multiply-accumulate) = 2 FLOP. layer = logit + attend, "
                          "model = all layers; no projections, no softmax.");
  if (r.sp > 1 && r.masked_pairs_by_rank.empty()) {
    text += cost::paragraph("note", "no layout was given: exact by rank is an even share.");
  }
  if (r.sp > 1) {
    text += cost::paragraph("note",
                            "sp > 1: no sequence-parallel communication is in these accountings.");
  }
  return text;
}

/// Layers by kind with the mode that priced them.
std::string policy_line(const CostRequest& r) {
  if (r.policy == CostPolicy::uniform)
    return fmt::format("mode: {} ({})\n", name_of(r.mode), r.mode_source);
  std::vector<std::string> parts;
  for (const LayerGroup& group : cost::kinds_of(r)) {
    parts.push_back(fmt::format("{} {} layers {}", group.count, name_of(group.kind),
                                name_of(mode_of(r.mode, r.policy, group.kind))));
  }
  return fmt::format("policy: {} ({})\n", name_of(r.policy), fmt::join(parts, ", "));
}

std::string mode_lines(const CostReport& report) {
  const CostRequest& r = report.request;
  const std::string_view star = r.policy == CostPolicy::uniform ? " (row *)" : "";
  const std::string text = policy_line(r);
  if (r.peak_tflops <= 0) {
    return text + cost::paragraph("drives",
                                  fmt::format("predicted attention time{}: not predicted, no peak "
                                              "rate given.",
                                              star));
  }
  return text +
         cost::paragraph(
             "drives",
             fmt::format("predicted attention time{}: 2 x {} MAC / {} TFLOP/s{} = {}; analytic, "
                         "one rank, forward, all layers, no memory traffic, no communication.",
                         star, report.driving_macs_rank_model, r.peak_tflops,
                         r.peak_source.empty() ? "" : fmt::format(" ({})", r.peak_source),
                         cost::duration(report.predicted_attention_s)));
}

}  // namespace

std::string to_text(const CostReport& report) {
  return title(report.request) + "\n" + accountings(report) + "\n" + by_rank(report) + "\n" +
         legend(report.request) + "\nwhy the rows differ\n" + cost::gaps_text(report) +
         cost::checks_text(report) + "\n" + mode_lines(report);
}

}  // namespace annulus
