#include "runtime/cost/format.h"
#include "runtime/cost/latency/operators.h"

#include <annulus/latency.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace annulus {
namespace {

using cost::TextRow;

std::string ms(double seconds) { return fmt::format("{:.6g}", seconds * 1e3); }
std::string us(double seconds) { return fmt::format("{:.5g}", seconds * 1e6); }

std::string what_of(const LatencyRequest& r) {
  switch (r.stage) {
    case Stage::prefill:
      return fmt::format("time to first token: prefill of {} x {} tokens", r.batch, r.seq);
    case Stage::decode:
      return fmt::format("time per token: decode, {} sequences x {} beams, {} + {} keys", r.batch,
                         r.beam, r.prompt, r.generated);
    case Stage::chunked:
      return fmt::format("time of a chunked step: {} chunks, {} decode entries", r.chunks.size(),
                         r.decodes.size());
  }
  return {};
}

/// "128", or "192 (values 128), latent 512 + 64".
std::string head_text(const LatencyRequest& r) {
  const ModelShape& m = r.model;
  std::string text = std::to_string(m.head_dim);
  if (m.value_dim() != m.head_dim) text += fmt::format(" (values {})", m.value_dim());
  if (r.rule == DimsRule::model && m.latent.kv_rank > 0) {
    text += fmt::format(", latent {} + {}", m.latent.kv_rank, m.latent.rope);
  }
  return text;
}

std::string experts_text(const LatencyRequest& r) {
  const ModelShape& m = r.model;
  if (m.moe.experts == 1) return {};
  std::vector<std::string> kinds;
  for (const LayerGroup& group : cost::kinds_of(m)) {
    kinds.push_back(fmt::format("{} {}", group.count, name_of(group.kind)));
  }
  std::string text = fmt::format("  experts     {} of {} a token; layers: {}", m.moe.per_token,
                                 m.moe.experts, fmt::join(kinds, ", "));
  if (m.moe.ffn > 0 && r.rule == DimsRule::model) {
    text += fmt::format(
        "\n              {} wide, {} shared of {}: the model's dimensions, GenZ has others",
        m.moe.ffn, m.moe.shared, m.moe.shared_ffn);
  } else if (m.moe.ffn > 0) {
    text +=
        fmt::format("\n              {} wide in chunked steps, {} in prefill and decode, as GenZ",
                    m.moe.ffn, m.ffn);
  }
  return text + "\n";
}

std::string header(const LatencyReport& report) {
  const LatencyRequest& r = report.request;
  const SystemRates& s = r.system;
  const ModelShape& m = r.model;
  return fmt::format(
      "latency  GenZ roofline, analytic: per operator the longest of compute, memory and link; "
      "nothing overlaps\n"
      "  system      {}: {:g} TFLOP/s bf16, {:g} GiB at {:g} GiB/s, link {:g} GiB/s and {:g} us, "
      "efficiency {:g}\n"
      "  model       {} layers, hidden {}, heads {}:{} x {}, ffn {}, vocab {}; {}\n{}"
      "  ranks       tp {}, ep {}, sp {}, pp {}\n",
      s.name, s.tflops, s.memory_gib, s.memory_gib_s, s.link_gib_s, s.link_latency_us, s.efficiency,
      m.layers, m.hidden, m.heads, m.heads_kv, head_text(r), m.ffn, m.vocab, name_of(r.precision),
      experts_text(r), r.tp, r.ep, r.sp, r.pp);
}

std::string flops(std::int64_t macs) {
  return cost::human(2 * static_cast<long double>(macs), "FLOP");
}

std::string ratio(double a, double b) { return b > 0 ? fmt::format("{:.6g}", a / b) : "-"; }

/// Totals by accounting; the last column sets the fork's modes side by side.
std::string totals(const ModeComparison& c) {
  const double factor = c.original.request.softmax_factor;
  std::vector<TextRow> rows{{"", "upstream x1", fmt::format("original x{:g}", factor),
                             fmt::format("corrected x{:g}", factor), "corrected/original"}};
  const auto time = [&](const char* name, double LatencyReport::*part) {
    rows.push_back({name, ms(c.upstream.*part), ms(c.original.*part), ms(c.corrected.*part),
                    ratio(c.corrected.*part, c.original.*part)});
  };
  const auto count = [&](const char* name, std::int64_t LatencyReport::*part) {
    rows.push_back(
        {name, flops(c.upstream.*part), flops(c.original.*part), flops(c.corrected.*part),
         ratio(static_cast<double>(c.corrected.*part), static_cast<double>(c.original.*part))});
  };
  time("  latency ms", &LatencyReport::latency_s);
  time("    Logit, Attend ms", &LatencyReport::attention_s);
  time("    other products ms", &LatencyReport::linear_s);
  time("    links ms", &LatencyReport::comm_s);
  count("  FLOP of a rank", &LatencyReport::macs);
  count("    Logit, Attend", &LatencyReport::attention_macs);
  return cost::table(std::move(rows), 1);
}

/// Operator by operator; a `*` marks those that the mode changes.
std::string operators(const ModeComparison& c) {
  std::vector<TextRow> rows{
      {"  operator", "times", "FLOP original", "corrected", "us original", "corrected", "bound"}};
  for (std::size_t i = 0; i < c.original.rows.size(); ++i) {
    const OperatorRow& a = c.original.rows[i];
    const OperatorRow& b = c.corrected.rows[i];
    const bool differs = a.macs != b.macs || a.latency_s() != b.latency_s();
    rows.push_back({fmt::format("{} {}", differs ? "*" : " ", a.name), std::to_string(a.repeat),
                    flops(a.macs), flops(b.macs), us(a.latency_s()), us(b.latency_s()),
                    a.bound() == b.bound()
                        ? std::string(name_of(b.bound()))
                        : fmt::format("{}, {}", name_of(a.bound()), name_of(b.bound()))});
  }
  return cost::table(std::move(rows), 1) + "  one run each, of one rank; * differs by mode\n";
}

std::string memory(const ModeComparison& c) {
  const LatencyReport& r = c.corrected;
  constexpr double kGiB = 1073741824.0;
  std::string text = fmt::format(
      "  memory      {:.4g} GiB of weights and {:.4g} GiB of cache a tp "
      "rank over {} stages; a device has {:g}",
      r.weight_bytes / kGiB, r.cache_bytes / kGiB, r.request.pp, r.request.system.memory_gib);
  if (r.offloaded) {
    text += fmt::format(": offloaded, {:.4g} GiB/s", r.memory_gib_s);
  } else if (!r.fits) {
    text += ": DOES NOT FIT; times are as if it did (GenZ stops here; --offload prices the host)";
  }
  return text + "\n";
}

}  // namespace

std::string to_text(const std::vector<ModeComparison>& stages) {
  std::string text;
  for (const ModeComparison& c : stages) {
    if (text.empty()) text = header(c.original);
    text += fmt::format("\n{}\n{}{}\n{}", what_of(c.original.request), totals(c), memory(c),
                        operators(c));
    for (const std::string& reason : c.reasons) text += cost::paragraph("why", reason);
  }
  return text;
}

}  // namespace annulus
