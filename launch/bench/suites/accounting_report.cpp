#include "launch/bench/suites/accounting.h"
#include "launch/chart/chart.h"
#include "launch/request/problem.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

double most(const std::vector<std::int64_t>& flops) {
  return flops.empty() ? 0 : static_cast<double>(std::ranges::max(flops));
}

double total(const std::vector<std::int64_t>& flops) {
  return static_cast<double>(std::accumulate(flops.begin(), flops.end(), std::int64_t{0}));
}

double ratio(double a, double b) { return b > 0 ? a / b : 0; }

/// How far a prediction is from what ran, in percent of what ran.
double miss(double predicted, double executed) {
  return 100 * std::abs(predicted - executed) / executed;
}

std::string names_of_ranks(int count) {
  return count == 1 ? "1 rank" : fmt::format("{} ranks", count);
}

std::string flops_verdict(const AccountingRun& run, const AccountingSpeedup& s) {
  const AccountingPoint& last = run.points.back();
  struct Candidate {
    const char* name;
    double value;
  };
  std::vector<Candidate> order{
      {"exact", s.exact}, {"original (//sp)", s.original}, {"corrected", s.corrected}};
  std::ranges::stable_sort(order, {},
                           [&](const Candidate& c) { return miss(c.value, s.executed); });
  return fmt::format(
      "On {} the busiest rank executed 1/{:.3f} of the FLOPs of one rank alone. Nearest is {} with "
      "{:.3f} (off by {:.2g} %), then {} with {:.3f} ({:.2g} %), then {} with {:.3f} ({:.2g} %).",
      names_of_ranks(last.sp), s.executed, order[0].name, order[0].value,
      miss(order[0].value, s.executed), order[1].name, order[1].value,
      miss(order[1].value, s.executed), order[2].name, order[2].value,
      miss(order[2].value, s.executed));
}

std::string meaning(const AccountingRun& run, const AccountingSpeedup& s) {
  const AccountingPoint& first = run.points.front();
  const AccountingPoint& last = run.points.back();
  const double all = ratio(total(last.executed_flops), total(first.executed_flops));
  const std::string share =
      s.balance > 0.995
          ? "a rank's share"
          : fmt::format("the mean share, not the busiest rank's (balance {:.3f})", s.balance);
  return fmt::format(
      "All {0} ranks together executed {1:.3f} times what one rank alone does: the work was {2}. "
      "//sp is {3}; corrected charges each rank with the whole prefill, {4:.3f} times what the "
      "busiest executed.",
      last.sp, all, all < 1.5 ? "shared, not repeated" : "repeated, not shared", share,
      ratio(s.executed, s.corrected));
}

/// Others at work make the clock say little.
bool busy(const AccountingRun& run) { return run.load_average > 0.5 * run.hardware_threads; }

std::string load_note(const AccountingRun& run) {
  return fmt::format("; load average {:.1f} on {} hardware threads at the start", run.load_average,
                     run.hardware_threads);
}

std::string clock_verdict(const AccountingRun& run, const AccountingSpeedup& s) {
  const AccountingPoint& last = run.points.back();
  const int seats = std::min(last.sp, run.hardware_threads);
  std::string text = fmt::format("By the clock {} are {:.2f} times as fast as one.",
                                 names_of_ranks(last.sp), s.measured);
  if (run.hardware_threads < last.sp) {
    text += fmt::format(
        " This machine has {} hardware threads: at most {} of {} ranks compute at once, so the "
        "clock "
        "cannot show more than {}, whatever is true.",
        run.hardware_threads, seats, last.sp, seats);
  } else {
    text +=
        fmt::format(" Each rank had a hardware thread of its own ({} here).", run.hardware_threads);
  }
  if (busy(run)) {
    text += fmt::format(
        " Others were at work here (load average {:.1f} before the first call), so the clock says "
        "little.",
        run.load_average);
  }
  return text + fmt::format(
                    " The processor time of the busiest rank, which other ranks on its core do not "
                    "lengthen (caches and waits apart), fell {:.2f} times.",
                    s.cpu);
}

ordered_json timing_json(const AccountingPoint& point) {
  return {{"median_s", point.forward.median_s}, {"min_s", point.forward.min_s},
          {"max_s", point.forward.max_s},       {"p99_s", point.forward.p99_s},
          {"cpu_median_s", point.cpu_s},        {"exposed_s", point.exposed_s}};
}

ordered_json point_json(const AccountingPoint& point, const AccountingSpeedup& s) {
  return {{"sp", point.sp},
          {"forward", timing_json(point)},
          {"original_macs_rank_layer", point.original_macs},
          {"corrected_macs_rank_layer", point.corrected_macs},
          {"exact_flops_rank_layer", point.exact_flops},
          {"executed_flops_rank_layer", point.executed_flops},
          {"balance", s.balance},
          {"predicted_speedup",
           {{"original", s.original}, {"corrected", s.corrected}, {"exact", s.exact}}},
          {"executed_speedup", s.executed},
          {"measured_speedup", s.measured},
          {"cpu_speedup", s.cpu}};
}

std::string json_of(const AccountingRun& run) {
  const std::vector<AccountingSpeedup> all = speedups(run);
  ordered_json points = ordered_json::array();
  for (std::size_t i = 0; i < all.size(); ++i) points.push_back(point_json(run.points[i], all[i]));
  return ordered_json{{"schema", "annulus.accounting/1"},
                      {"problem", ordered_json::parse(problem_json(run.problem))},
                      {"algorithm", run.algorithm},
                      {"layout", run.layout},
                      {"kernel", run.kernel},
                      {"transport", "local"},
                      {"threads_per_rank", 1},
                      {"hardware_threads", run.hardware_threads},
                      {"load_average", run.load_average},
                      {"iterations", run.calls},
                      {"points", points},
                      {"passed", plausible(run)},
                      {"verdict", verdict(run)},
                      {"device", run.device},
                      {"command_line", run.command_line}}
      .dump();
}

std::string describe(const AccountingRun& run) {
  const Problem& p = run.problem;
  return fmt::format("batch {}, seq {}, heads {}:{}, head_dim {}, {}, mask {}; {}, {} layout, {}",
                     p.batch, p.seq, p.heads, *p.heads_kv, p.head_dim, name_of(p.dtype),
                     p.mask.name(), run.algorithm, run.layout, run.kernel);
}

std::string text_of(const AccountingRun& run) {
  std::string text = fmt::format(
      "accounting  one prefill, cut over sp ranks: who predicts what a rank does?\n"
      "  {}\n  ranks are threads of one process, one thread each; median of {} calls{}\n\n",
      describe(run), run.calls, load_note(run));
  text += fmt::format("{:>4} {:>11} {:>11} {:>17} {:>9} | {:>9} {:>9} {:>9} | {:>9} {:>9} {:>9}\n",
                      "sp", "seconds", "cpu s", "FLOP busiest rank", "balance", "original",
                      "corrected", "exact", "executed", "measured", "cpu");
  const std::vector<AccountingSpeedup> all = speedups(run);
  for (std::size_t i = 0; i < all.size(); ++i) {
    const AccountingPoint& point = run.points[i];
    const AccountingSpeedup& s = all[i];
    text += fmt::format(
        "{:>4} {:>11.4f} {:>11.4f} {:>17.0f} {:>9.4f} | {:>9.3f} {:>9.3f} {:>9.3f} | {:>9.3f} "
        "{:>9.3f} {:>9.3f}\n",
        point.sp, point.forward.median_s, point.cpu_s, most(point.executed_flops), s.balance,
        s.original, s.corrected, s.exact, s.executed, s.measured, s.cpu);
  }
  text +=
      "  speed-up over sp = 1: predicted by each accounting | executed: FLOPs that kernels "
      "counted, "
      "busiest rank;\n  measured: wall clock; cpu: processor time of the busiest rank. exact = sp "
      "x "
      "balance\n\n";
  for (const std::string& sentence : verdict(run)) text += "verdict  " + sentence + "\n";
  if (!plausible(run)) text += "WARNING  a rank executed fewer FLOPs than its mask asks for\n";
  return text;
}

ChartSeries predicted(const char* name) { return {.name = name, .values = {}, .predicted = true}; }
ChartSeries run_series(const char* name) { return {.name = name, .values = {}}; }

std::string svg_of(const AccountingRun& run) {
  ChartPanel panel{.title = "Speed-up over one rank",
                   .y_label = "times as fast",
                   .categories = {},
                   .series = {predicted("original (//sp)"), predicted("exact (sp x balance)"),
                              predicted("corrected"), run_series("executed FLOPs"),
                              run_series("wall clock"), run_series("processor time")},
                   .lines = {}};
  for (const AccountingSpeedup& s : speedups(run)) {
    panel.categories.push_back(fmt::format("sp = {}", s.sp));
    const double values[] = {s.original, s.exact, s.corrected, s.executed, s.measured, s.cpu};
    for (std::size_t i = 0; i < panel.series.size(); ++i) {
      panel.series[i].values.emplace_back(values[i]);
      panel.series[i].labels.push_back(fmt::format("{:.2f}", values[i]));
    }
  }
  if (run.hardware_threads < run.points.back().sp) {
    panel.lines.push_back({static_cast<double>(run.hardware_threads),
                           fmt::format("{} hardware threads: the wall clock can show no more",
                                       run.hardware_threads)});
  }
  return to_svg({.title = "One prefill on sp ranks: which accounting predicts a rank's work?",
                 .notes = {describe(run),
                           "dashed: predicted; solid: what ran, of the busiest or slowest rank",
                           fmt::format("ranks are threads of {}, median of {} calls{}", run.device,
                                       run.calls, load_note(run))},
                 .panels = {panel}});
}

}  // namespace

std::vector<AccountingSpeedup> speedups(const AccountingRun& run) {
  const AccountingPoint& one = run.points.front();
  std::vector<AccountingSpeedup> all;
  for (const AccountingPoint& point : run.points) {
    AccountingSpeedup s;
    s.sp = point.sp;
    s.balance = ratio(total(point.exact_flops), point.sp * most(point.exact_flops));
    s.original =
        ratio(static_cast<double>(one.original_macs), static_cast<double>(point.original_macs));
    s.corrected =
        ratio(static_cast<double>(one.corrected_macs), static_cast<double>(point.corrected_macs));
    s.exact = ratio(most(one.exact_flops), most(point.exact_flops));
    s.executed = ratio(most(one.executed_flops), most(point.executed_flops));
    s.measured = ratio(one.forward.median_s, point.forward.median_s);
    s.cpu = ratio(one.cpu_s, point.cpu_s);
    all.push_back(s);
  }
  return all;
}

std::vector<std::string> verdict(const AccountingRun& run) {
  const AccountingSpeedup last = speedups(run).back();
  if (last.sp == 1)
    return {"With one rank every accounting predicts the same: give world above 1."};
  return {flops_verdict(run, last), meaning(run, last), clock_verdict(run, last)};
}

bool plausible(const AccountingRun& run) {
  return std::ranges::all_of(run.points, [](const AccountingPoint& point) {
    return !point.executed_flops.empty() &&
           std::ranges::equal(point.exact_flops, point.executed_flops, std::ranges::less_equal());
  });
}

SuiteReport report_of(const AccountingRun& run) {
  return {.text = text_of(run), .json = json_of(run), .svg = svg_of(run), .passed = plausible(run)};
}

}  // namespace annulus::launch
