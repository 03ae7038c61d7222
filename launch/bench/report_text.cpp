#include "launch/bench/report.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::launch {
namespace {

std::string problem_line(const Problem& p) {
  return fmt::format(
      "attention  batch {}, seq {}, seq_kv {}, heads {}:{}, head_dim {}, {}, mask {}\n", p.batch,
      p.seq, *p.seq_kv, p.heads, *p.heads_kv, p.head_dim, name_of(p.dtype), p.mask.name());
}

std::string percent(const std::optional<double>& share) {
  return share ? fmt::format("{:.1f} %", 100 * *share) : "-";
}

std::string timing_line(const char* pass, const std::optional<Timing>& t, double tflops,
                        const MatrixPeak& peak) {
  if (!t) return {};
  return fmt::format("  {:<9} {:>10.4f} {:>10.4f} {:>10.4f} {:>10.4f} {:>14.5f} {:>8}\n", pass,
                     t->median_s, t->min_s, t->max_s, t->p99_s, tflops, percent(mfu(tflops, peak)));
}

/// Model FLOPs utilisation, and of what.
std::string mfu_text(const BenchReport& r) {
  if (r.peak.tflops <= 0) return "MFU        unavailable: " + r.peak.unavailable + "\n";
  return fmt::format(
      "MFU        {} of {:.1f} TFLOP/s dense, {}; {:.5f} TFLOP/s a rank over all timed passes\n",
      percent(mfu(r.tflops_per_rank, r.peak)), r.peak.tflops, r.peak.source, r.tflops_per_rank);
}

std::string hidden_line(const char* pass, const std::optional<HiddenCosts>& h,
                        std::int64_t transfers) {
  if (!h) return {};
  std::string text = fmt::format(
      "  {:<9} cold {:.4f} s; host {:.0f} us a call of {} transfers, {:.0f} right behind another; ",
      pass, h->cold_s, h->host_s * 1e6, transfers, h->host_again_s * 1e6);
  if (!h->graph_s || !h->graph_host_s) return text + "no graph: " + h->no_graph + "\n";
  return text + fmt::format("replayed {:.4f} s, host {:.0f} us a replay, {:.0f} behind another\n",
                            *h->graph_s, *h->graph_host_s * 1e6,
                            1e6 * h->graph_host_again_s.value_or(0));
}

std::string check_text(const std::optional<CheckReport>& check) {
  if (!check) return "check      none\n";
  std::string text = fmt::format("check      {} against float64: {}\n",
                                 check->sampled ? "a sample" : "every element",
                                 check->passed() ? "passed" : "FAILED");
  for (const CheckLine& line : check->lines) {
    text += fmt::format("  {:<4} rel_err {:.2e}  bound {:.2e}  {} elements{}\n", line.name,
                        line.rel_err, line.bound, line.elements,
                        line.rel_err <= line.bound ? "" : "  <- too far");
  }
  if (check->sampled && check->lines.size() > 2) {
    text += "  dk and dv are recomputed from the run's own out and lse, sampled above\n";
  }
  return text;
}

std::string sm_limit_text(const BenchReport& r) {
  if (r.sm_limit == 0) return {};
  if (r.kernel_used != "hopper") return "; sm_limit is ignored: only hopper keeps to one";
  return fmt::format("; at most {} multiprocessors a launch", r.sm_limit);
}

const char* exposed_words(const BenchReport& r) {
  if (r.exposed_source == "trace") return " in recorded calls";
  return r.exposed_source == "difference" ? " by difference, which is rough" : "";
}

std::string comm_text(const BenchReport& r) {
  const double mib = static_cast<double>(std::ranges::max(r.bytes_sent)) / (1 << 20);
  std::string text = fmt::format(
      "comm       {:.1f} MiB sent by the busiest rank; {:.4f} s exposed{}, {:.4f} s when "
      "transfers run alone",
      mib, r.exposed_s, exposed_words(r), r.transfers_alone_s);
  if (r.overlap && *r.overlap < 0) text += " (exposed: mostly waiting for slower ranks)";
  text += "\n";
  if (r.recorded && !r.recorded->held) {
    text +=
        "  recorded calls did not fit into a stream's queue: they have the host's time in them\n";
  }
  return text;
}

std::string trace_text(const TraceFigures& t) {
  std::string text = fmt::format("trace      {}", t.file);
  if (t.forward_s) text += fmt::format("; forward {:.4f} s when traced", *t.forward_s);
  if (t.backward_s) text += fmt::format(", backward {:.4f} s", *t.backward_s);
  return text + fmt::format("; clocks within {:.0f} us\n", t.clock_error_s * 1e6);
}

}  // namespace

std::string to_text(const BenchReport& r) {
  std::string text = problem_line(r.problem);
  text +=
      fmt::format("ranks      {} ({} ring x {} ulysses), {} layout, algorithm {}, transport {}\n",
                  r.world, r.mesh.ring, r.mesh.ulysses, r.layout, r.algorithm, r.transport);
  if (r.backend != "cpu") {
    text += fmt::format("device     {}; {}: {}\n", r.device, r.transport, r.transport_reason);
  }
  text += fmt::format("kernel     {}, {} threads a rank{}{}{}\n", r.kernel_used, r.threads,
                      sm_limit_text(r),
                      r.fallback_reason.empty() ? "" : "; fallback: ", r.fallback_reason);
  text += fmt::format("  {:<9} {:>10} {:>10} {:>10} {:>10} {:>14} {:>8}\n", "pass", "median s",
                      "min s", "max s", "p99 s", "TFLOP/s a rank", "MFU");
  text += timing_line("forward", r.forward, r.forward_tflops_per_rank, r.peak);
  text += timing_line("backward", r.backward, r.backward_tflops_per_rank, r.peak);
  text += hidden_line("forward", r.forward_hidden, r.forward_transfers);
  text += hidden_line("backward", r.backward_hidden, r.backward_transfers);
  text += "  slowest rank of each call; exact masked FLOPs over the median\n";
  text += mfu_text(r);
  text += check_text(r.check);
  text += fmt::format("memory     {:.1f} MiB a rank planned, {:.1f} MiB measured (growth of {})\n",
                      static_cast<double>(r.planned_peak_bytes) / (1 << 20),
                      static_cast<double>(r.measured_peak_bytes) / (1 << 20),
                      r.backend == "cpu" ? "VmHWM" : "the GPU's used memory");
  text += comm_text(r);
  if (r.recorded && !r.recorded->file.empty()) text += trace_text(*r.recorded);
  if (r.hardware_counters && !r.cost.hardware.available()) {
    text += "hardware   counters unavailable: " + r.cost.hardware_unavailable + "\n";
  }
  if (!r.kinds.empty()) text += to_text(r.kinds, r.cost.executed);
  return text + "\n" + to_text(r.cost);
}

}  // namespace annulus::launch
