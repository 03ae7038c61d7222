#include <annulus/latency.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus {
namespace {

bool same_work(const OperatorRow& a, const OperatorRow& b) {
  return a.name == b.name && a.repeat == b.repeat && a.macs == b.macs &&
         a.input_elements == b.input_elements && a.weight_elements == b.weight_elements &&
         a.output_elements == b.output_elements && a.sent_elements == b.sent_elements &&
         a.compute_s == b.compute_s && a.memory_s == b.memory_s && a.comm_s == b.comm_s;
}

bool others_equal(const LatencyReport& a, const LatencyReport& b) {
  return a.rows.size() == b.rows.size() &&
         std::ranges::equal(a.rows, b.rows, [](const OperatorRow& x, const OperatorRow& y) {
           return x.is_attention() ? x.name == y.name : same_work(x, y);
         });
}

double ratio(double a, double b) { return b > 0 ? a / b : 1; }

/// Compute time of the attention rows over the time of their bytes, and which bounds them.
struct AttentionBound {
  double compute_s = 0;
  double memory_s = 0;
  bool all_memory = true;
  bool all_compute = true;
};

AttentionBound bound_of(const LatencyReport& report) {
  AttentionBound bound;
  for (const OperatorRow& row : report.rows) {
    if (!row.is_attention() || row.bound() == Bound::none) continue;
    const auto repeat = static_cast<double>(row.repeat);
    bound.compute_s += repeat * row.compute_s;
    bound.memory_s += repeat * row.memory_s;
    bound.all_memory = bound.all_memory && row.bound() == Bound::memory;
    bound.all_compute = bound.all_compute && row.bound() == Bound::compute;
  }
  return bound;
}

std::string_view words_for(const AttentionBound& bound) {
  if (bound.all_memory) return "memory-bound";
  return bound.all_compute ? "compute-bound" : "partly memory-bound";
}

std::string why_equal_counts(const LatencyRequest& r) {
  if (r.stage == Stage::chunked) {
    return "The modes count the same: GenZ never divides the keys of a chunked step, so there is "
           "nothing to correct.";
  }
  if (r.sp == 1) {
    return fmt::format(
        "The modes count the same because sp = 1: {0} // 1 = {0} keys, so every row is identical.",
        r.stage == Stage::prefill ? r.seq : r.prompt);
  }
  return "The modes count the same: there is no prompt to divide.";
}

std::string why_counts_differ(const ModeComparison& c) {
  const LatencyRequest& r = c.original.request;
  const std::int64_t keys = r.stage == Stage::prefill ? r.seq : r.prompt;
  return fmt::format(
      "Corrected counts {0:.4g} times original's attention FLOPs: all {1} keys on each of {2} "
      "ranks "
      "instead of {1} // {2} = {3}.{4}",
      c.attention_flops_ratio, keys, r.sp, keys / r.sp,
      r.stage == Stage::decode && r.generated > 0 ? " Generated keys are never divided." : "");
}

std::string why_time(const ModeComparison& c) {
  const AttentionBound bound = bound_of(c.corrected);
  const double share = 100 * ratio(c.original.attention_s, c.original.latency_s);
  const double attention = ratio(c.corrected.attention_s, c.original.attention_s);
  std::string text = fmt::format(
      "Time: attention is {:.3g} % of original's step and takes {:.4g} times as long when "
      "corrected, so the step takes {:.5g} times.",
      share, attention, c.time_ratio);
  if (bound.all_memory && bound.memory_s > 0) {
    text += fmt::format(
        " It is memory-bound even then (computing takes {:.3g} % of what moving the bytes takes), "
        "so the FLOPs do not show; the keys that are read again do.",
        100 * bound.compute_s / bound.memory_s);
  }
  return text;
}

/// Does the factor on Logit and Attend show in time?
std::string why_factor(const ModeComparison& c) {
  const LatencyRequest& r = c.original.request;
  if (r.softmax_factor == 1) return {};
  const AttentionBound bound = bound_of(c.original);
  const double grown = ratio(c.original.attention_s, c.upstream.attention_s);
  const std::string factor = fmt::format("The factor {:g} on both products", r.softmax_factor);
  if (grown <= 1) {
    return fmt::format(
        "{} changes no time: attention is memory-bound, and {:g} times its FLOPs still take only "
        "{:.3g} % of the time that its bytes take.",
        factor, r.softmax_factor, 100 * ratio(bound.compute_s, bound.memory_s));
  }
  return fmt::format(
      "{} makes attention {:.4g} times as long as upstream GenZ has it (it is {}), and the step "
      "{:.4g} times.",
      factor, grown, words_for(bound), ratio(c.original.latency_s, c.upstream.latency_s));
}

std::string why_policy(const ModeComparison& c) {
  return fmt::format(
      "Policy legacy (dense layers corrected, moe layers original, factor {:g}) gives {:.6g} ms; "
      "original has {:.6g} and corrected {:.6g}.",
      c.original.request.softmax_factor, c.by_policy->latency_s * 1e3, c.original.latency_s * 1e3,
      c.corrected.latency_s * 1e3);
}

std::string why_others(const ModeComparison& c) {
  const auto others = std::ranges::count_if(
      c.original.rows, [](const OperatorRow& row) { return !row.is_attention(); });
  if (!c.others_equal) return "WARNING: an operator other than Logit and Attend differs.";
  return fmt::format(
      "The {} other operators are the same in both modes, in counts, bytes and time.", others);
}

}  // namespace

ModeComparison compare_modes(const LatencyRequest& request) {
  LatencyRequest r = request;
  ModeComparison c;
  if (r.policy != CostPolicy::uniform) c.by_policy = estimate_latency(r);
  r.policy = CostPolicy::uniform;
  r.mode = CostMode::original;
  c.original = estimate_latency(r);
  r.mode = CostMode::corrected;
  c.corrected = estimate_latency(r);
  r.mode = CostMode::original;
  r.softmax_factor = 1;
  c.upstream = estimate_latency(r);
  c.attention_flops_ratio = ratio(static_cast<double>(c.corrected.attention_macs),
                                  static_cast<double>(c.original.attention_macs));
  c.flops_ratio =
      ratio(static_cast<double>(c.corrected.macs), static_cast<double>(c.original.macs));
  c.time_ratio = ratio(c.corrected.latency_s, c.original.latency_s);
  c.others_equal = others_equal(c.original, c.corrected);
  const bool same = c.corrected.attention_macs == c.original.attention_macs;
  c.reasons.push_back(same ? why_equal_counts(request) : why_counts_differ(c));
  if (!same) c.reasons.push_back(why_time(c));
  if (const std::string text = why_factor(c); !text.empty()) c.reasons.push_back(text);
  c.reasons.push_back(why_others(c));
  if (c.by_policy) c.reasons.push_back(why_policy(c));
  return c;
}

}  // namespace annulus
