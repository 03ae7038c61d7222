#include "launch/bench/measure.h"
#include "launch/bench/suites/classic.h"
#include "launch/chart/chart.h"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

std::optional<double> speedup(const ClassicRun& run, const ClassicRow& row) {
  const ClassicRow* naive = row_of(run, row, "naive");
  if (naive == nullptr || row.median_s <= 0) return std::nullopt;
  return naive->median_s / row.median_s;
}

std::string grouped(std::int64_t count) {
  std::string text = std::to_string(count);
  for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3) {
    text.insert(static_cast<std::size_t>(at), 1, ',');
  }
  return text;
}

bool passed(const ClassicRun& run) {
  return std::ranges::all_of(run.rows,
                             [&](const ClassicRow& row) { return row.rel_err <= run.bound; });
}

std::string row_text(const ClassicRun& run, const ClassicRow& row) {
  const auto times = speedup(run, row);
  const bool compares = row.kernel != "naive" && times.has_value();
  return fmt::format(
      "  {:<11} {:<7} {:>5} {:>10.3f} {:>10.3f} {:>8} {:>13} {:>8} {:>9} {:>14} {:>9.1e}\n",
      row.shape.name(), row.kernel, row.calls, row.mean_s * 1e3, row.median_s * 1e3,
      times ? fmt::format("{:.2f}", *times) : "-", grouped(row.memory_bytes()),
      compares ? fmt::format("{:.1f} %", 100 * saved(run, row)) : "-",
      grouped(row.shape.lse_bytes()),
      row.counters.traffic_bytes > 0 ? grouped(row.counters.traffic_bytes) : "-", row.rel_err);
}

std::string text_of(const ClassicRun& run) {
  std::string text = fmt::format(
      "classic  local attention: batch x seq x dim, one head, f32, full mask, {} threads, {}\n"
      "  {:<11} {:<7} {:>5} {:>10} {:>10} {:>8} {:>13} {:>8} {:>9} {:>14} {:>9}\n",
      run.threads, run.device, "shape", "kernel", "calls", "mean ms", "median ms", "x naive",
      "temp+out B", "saved", "LSE B", "traffic B", "rel_err");
  const ClassicRow* before = nullptr;
  for (const ClassicRow& row : run.rows) {
    if (before != nullptr && before->shape.name() != row.shape.name()) text += "\n";
    text += row_text(run, row);
    before = &row;
  }
  text += fmt::format(
      "  {} warm-ups before the calls; x naive: speed-up by medians; temp+out: temporaries of the "
      "algorithm and output\n  (blocks that a thread works in and the LSE are apart); saved: of "
      "naive's, for flash2 2S / (2S + D);\n  rel_err: max|x - ref| / max|ref| against float64, "
      "bound {:.0e}: {}\n",
      run.rows.empty() ? 0 : run.rows.front().warmups, run.bound,
      passed(run) ? "passed" : "FAILED");
  text += fmt::format("  load average before the first call: {:.1f}\n", run.load_average);
  if (!run.rows.empty() && row_of(run, run.rows.front(), "naive") == nullptr) {
    text += "  naive is not built: no speed-up, nothing saved\n";
  }
  return text;
}

ordered_json row_json(const ClassicRun& run, const ClassicRow& row) {
  const auto times = speedup(run, row);
  const bool compares = row_of(run, row, "naive") != nullptr;
  return {
      {"batch", row.shape.batch},
      {"seq", row.shape.seq},
      {"dim", row.shape.dim},
      {"kernel", row.kernel},
      {"warmup", row.warmups},
      {"iterations", row.calls},
      {"mean_s", row.mean_s},
      {"median_s", row.median_s},
      {"speedup_over_naive", times ? ordered_json(*times) : ordered_json(nullptr)},
      {"flops", row.counters.flops},
      {"materialized_bytes", row.counters.materialized_bytes},
      {"output_bytes", row.shape.output_bytes()},
      {"memory_bytes", row.memory_bytes()},
      {"saved", compares ? ordered_json(saved(run, row)) : ordered_json(nullptr)},
      {"lse_bytes", row.shape.lse_bytes()},
      {"traffic_bytes", row.counters.traffic_bytes > 0 ? ordered_json(row.counters.traffic_bytes)
                                                       : ordered_json(nullptr)},
      {"rel_err", row.rel_err},
      {"rows_compared", row.rows_compared}};
}

std::string json_of(const ClassicRun& run) {
  ordered_json rows = ordered_json::array();
  for (const ClassicRow& row : run.rows) rows.push_back(row_json(run, row));
  return ordered_json{{"schema", "annulus.classic/1"},
                      {"dtype", "f32"},
                      {"mask", "full"},
                      {"heads", 1},
                      {"threads", run.threads},
                      {"load_average", run.load_average},
                      {"bound", run.bound},
                      {"passed", passed(run)},
                      {"rows", rows},
                      {"device", run.device},
                      {"command_line", run.command_line}}
      .dump();
}

/// A panel with one bar for each row.
ChartPanel panel_of(const ClassicRun& run, const char* title, const char* y_label, bool log_scale,
                    const auto& value, const auto& label) {
  ChartPanel panel{.title = title,
                   .y_label = y_label,
                   .categories = {},
                   .series = {},
                   .lines = {},
                   .log_scale = log_scale};
  for (const ClassicRow& row : run.rows) {
    const std::string shape = row.shape.name();
    if (panel.categories.empty() || panel.categories.back() != shape) {
      panel.categories.push_back(shape);
    }
    auto series = std::ranges::find(panel.series, row.kernel, &ChartSeries::name);
    if (series == panel.series.end()) {
      panel.series.push_back({.name = row.kernel, .values = {}, .labels = {}});
      series = panel.series.end() - 1;
    }
    series->values.push_back(value(row));
    series->labels.push_back(label(row));
  }
  return panel;
}

std::string svg_of(const ClassicRun& run) {
  const auto time = panel_of(
      run, "Time of one call", "ms, median", true,
      [](const ClassicRow& row) { return row.median_s * 1e3; },
      [](const ClassicRow& row) {
        const double ms = row.median_s * 1e3;
        return ms < 10 ? fmt::format("{:.2g}", ms) : fmt::format("{:.0f}", ms);
      });
  const auto memory = panel_of(
      run, "Temporaries and output (the LSE is apart)", "bytes, k is 1000", true,
      [](const ClassicRow& row) { return static_cast<double>(row.memory_bytes()); },
      [](const ClassicRow& row) { return short_number(static_cast<double>(row.memory_bytes())); });
  Chart chart{
      .title = "Local attention kernels: naive, flash1, flash2",
      .notes = {fmt::format(
          "batch x seq x dim, one head, f32, full mask, {} threads of {}; load average {:.1f}",
          run.threads, run.device, run.load_average)},
      .panels = {time}};
  if (!run.rows.empty() && row_of(run, run.rows.front(), "naive") != nullptr) {
    chart.panels.push_back(panel_of(
        run, "Speed-up over naive", "times as fast", false,
        [&](const ClassicRow& row) { return speedup(run, row); },
        [&](const ClassicRow& row) {
          return fmt::format("{:.2g}", speedup(run, row).value_or(0));
        }));
  }
  chart.panels.push_back(memory);
  return to_svg(chart);
}

}  // namespace

const ClassicRow* row_of(const ClassicRun& run, const ClassicRow& row, std::string_view kernel) {
  const auto found = std::ranges::find_if(run.rows, [&](const ClassicRow& other) {
    return other.kernel == kernel && other.shape.name() == row.shape.name();
  });
  return found == run.rows.end() ? nullptr : &*found;
}

double saved(const ClassicRun& run, const ClassicRow& row) {
  const ClassicRow* naive = row_of(run, row, "naive");
  if (naive == nullptr) return 0;
  return 1 - static_cast<double>(row.memory_bytes()) / static_cast<double>(naive->memory_bytes());
}

SuiteReport report_of(const ClassicRun& run) {
  return {.text = text_of(run), .json = json_of(run), .svg = svg_of(run), .passed = passed(run)};
}

}  // namespace annulus::launch
