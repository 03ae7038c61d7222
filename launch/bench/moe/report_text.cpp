#include "launch/bench/moe/cost.h"

#include <annulus/annulus.h>

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace annulus::launch {
namespace {

std::optional<double> slowdown(const std::optional<Timing>& timing,
                               const std::optional<Timing>& balanced) {
  if (!timing || !balanced || balanced->median_s <= 0) return std::nullopt;
  return timing->median_s / balanced->median_s;
}

std::string problem_lines(const MoeReport& r) {
  const moe::LayerConfig& c = r.request.config;
  const std::string shared = c.shared_ffn > 0
                                 ? fmt::format(", {} shared of {}", r.request.shared_experts,
                                               c.shared_ffn / r.request.shared_experts)
                                 : "";
  if (r.request.routing == RoutingKind::none) {
    return fmt::format("dense      {} tokens, hidden {}, one FFN of {}, {}, {}\n", r.request.tokens,
                       c.hidden, c.shared_ffn,
                       c.activation == moe::Activation::swiglu ? "swiglu" : "gelu",
                       name_of(c.dtype));
  }
  const std::string routing = r.request.router.empty() ? std::string(name_of(r.request.routing))
                                                       : fmt::format("router {}", r.request.router);
  return fmt::format(
      "moe        {} tokens, hidden {}, {} experts of {}{}, top_k {}, {}, {}\n"
      "routing    {}; rows travel {}; room for {} rows a rank and round{}\n",
      r.request.tokens, c.hidden, c.experts, c.ffn, shared, c.k,
      c.activation == moe::Activation::swiglu ? "swiglu" : "gelu", name_of(c.dtype), routing,
      r.sent_tokens ? "once a rank" : "once an expert", r.capacity_rows,
      r.rounds > 1 ? fmt::format(", {} rounds: the rest was carried", r.rounds) : "");
}

std::string timing_line(const char* pass, const std::optional<Timing>& t, double tflops) {
  if (!t) return {};
  return fmt::format("  {:<9} {:>10.4f} {:>10.4f} {:>10.4f} {:>10.4f} {:>14.5f}\n", pass,
                     t->median_s, t->min_s, t->max_s, t->p99_s, tflops);
}

std::string load_lines(const MoeReport& r) {
  const auto unused = std::ranges::count(r.expert_rows, 0);
  std::string text = fmt::format(
      "load       busiest expert {:.3f} of the mean ({} rows), busiest rank {:.3f} of the mean ({} "
      "rows), {} experts unused, {} pairs dropped\n",
      r.expert_max_over_mean(), std::ranges::max(r.expert_rows), r.rank_max_over_mean(),
      std::ranges::max(r.rank_rows), unused, r.dropped);
  if (r.bad_tokens > 0) {
    text +=
        fmt::format("WARNING    {} tokens have logits that are no numbers: their weights are 0\n",
                    r.bad_tokens);
  }
  const auto forward = r.forward_slowdown();
  const auto backward = r.backward_slowdown();
  if (!forward && !backward) return text;
  text += "imbalance ";
  if (forward) {
    text += fmt::format(" forward {:.2f} x the {:.4f} s of a balanced routing", *forward,
                        r.balanced_forward->median_s);
  }
  if (backward) {
    text += fmt::format("{} backward {:.2f} x {:.4f} s", forward ? ";" : "", *backward,
                        r.balanced_backward->median_s);
  }
  return text + (r.kept_forward || r.kept_backward ? ", both without the router\n" : "\n");
}

std::string check_text(const std::optional<CheckReport>& check) {
  if (!check) return "check      none\n";
  std::string text = fmt::format("check      {} against float64: {}\n",
                                 check->sampled ? "a sample" : "every element",
                                 check->passed() ? "passed" : "FAILED");
  for (const CheckLine& line : check->lines) {
    text += fmt::format("  {:<12} rel_err {:.2e}  bound {:.2e}  {} elements{}\n", line.name,
                        line.rel_err, line.bound, line.elements,
                        line.rel_err <= line.bound ? "" : "  <- too far");
  }
  return text;
}

}  // namespace

double MoeReport::expert_max_over_mean() const { return moe::load_of(expert_rows).max_over_mean; }
double MoeReport::rank_max_over_mean() const { return moe::load_of(rank_rows).max_over_mean; }

std::optional<double> MoeReport::forward_slowdown() const {
  return slowdown(kept_forward ? kept_forward : forward, balanced_forward);
}

std::optional<double> MoeReport::backward_slowdown() const {
  return slowdown(kept_backward ? kept_backward : backward, balanced_backward);
}

double tflops_per_rank(const std::optional<Timing>& timing,
                       const std::vector<std::int64_t>& flops) {
  if (!timing || timing->median_s <= 0 || flops.empty()) return 0.0;
  const auto sum =
      static_cast<double>(std::accumulate(flops.begin(), flops.end(), std::int64_t{0}));
  return sum / static_cast<double>(flops.size()) / timing->median_s * 1e-12;
}

std::string to_text(const MoeReport& r) {
  std::string text = problem_lines(r);
  text += fmt::format(
      "ranks      {}, expert degree {}, transport {}, {} threads a rank, kernel {}\n", r.world,
      r.request.options.expert_degree, r.transport, r.request.options.threads, r.kernel);
  text += fmt::format("  {:<9} {:>10} {:>10} {:>10} {:>10} {:>14}\n", "pass", "median s", "min s",
                      "max s", "p99 s", "TFLOP/s a rank");
  text += timing_line("forward", r.forward, tflops_per_rank(r.forward, r.forward_flops));
  text += timing_line("backward", r.backward, tflops_per_rank(r.backward, r.backward_flops));
  text += "  slowest rank of each call; mean of the ranks' executed FLOPs over the median\n";
  if (r.request.routing != RoutingKind::none) text += load_lines(r);
  text += check_text(r.check);
  text += fmt::format("memory     {:.1f} MiB a rank planned, {:.1f} MiB measured ({})\n",
                      static_cast<double>(r.planned_peak_bytes) / (1 << 20),
                      static_cast<double>(r.measured_peak_bytes) / (1 << 20),
                      r.backend == "cpu" ? "growth of VmHWM" : "the layer's memory on the GPU");
  text += fmt::format(
      "comm       {:.2f} MiB forward, {:.2f} MiB backward sent by the busiest rank; {:.4f} s "
      "exposed\n",
      static_cast<double>(std::ranges::max(r.forward_bytes)) / (1 << 20),
      static_cast<double>(std::ranges::max(r.backward_bytes)) / (1 << 20), r.exposed_s);
  return text + cost_text(r);
}

}  // namespace annulus::launch
