#include "launch/chart/chart.h"

#include "launch/chart/svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

namespace annulus::launch {
namespace {

constexpr std::array<std::string_view, 7> kColours{"#0072B2", "#009E73", "#CC79A7", "#222222",
                                                   "#D55E00", "#56B4E9", "#E69F00"};
constexpr double kWidth = 1060;
constexpr double kLeft = 86;
constexpr double kRight = 28;
constexpr double kPlot = 250;   ///< height of a panel's plot
constexpr double kPanel = 350;  ///< with its title and axis
constexpr std::string_view kGrid = "#dddddd";
constexpr std::string_view kAxis = "#555555";

}  // namespace

std::string short_number(double value) {
  constexpr std::array<std::string_view, 5> kUnits{"", "k", "M", "G", "T"};
  std::size_t unit = 0;
  while (value >= 999.5 && unit + 1 < kUnits.size()) {
    value /= 1000;
    ++unit;
  }
  return fmt::format("{:.3g}{}", value, kUnits[unit]);
}

namespace {

/// Values to pixels.
class Scale {
 public:
  Scale(const ChartPanel& panel, double bottom) : log_(panel.log_scale), bottom_(bottom) {
    double top = 0;
    double least = 0;
    const auto take = [&](double value) {
      top = std::max(top, value);
      if (value > 0) least = least == 0 ? value : std::min(least, value);
    };
    for (const ChartSeries& series : panel.series) {
      for (const std::optional<double>& value : series.values) {
        if (value) take(*value);
      }
    }
    for (const ChartLine& line : panel.lines) take(line.value);
    if (top <= 0) top = 1;
    if (log_) {
      low_ = std::floor(std::log10(least == 0 ? 1 : least / 1.5));
      high_ = std::log10(top) + 0.35;
      for (double power = low_; power <= high_; ++power) ticks_.push_back(std::pow(10, power));
    } else {
      ticks_ = ticks_to(top);
      high_ = std::max(top * 1.1, ticks_.back());
    }
  }

  double y(double value) const {
    const double at = log_ ? std::log10(value) : value;
    return bottom_ - kPlot * std::clamp((at - low_) / (high_ - low_), 0.0, 1.0);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  bool log_;
  double bottom_;
  double low_ = 0;
  double high_ = 1;
  std::vector<double> ticks_;
};

void draw_axis(Svg& svg, const ChartPanel& panel, const Scale& scale, double top) {
  svg.text(kLeft - 58, top - 22, panel.title, {.size = 15, .bold = true});
  for (const double tick : scale.ticks()) {
    const double y = scale.y(tick);
    svg.line(kLeft, y, kWidth - kRight, y, kGrid, 1);
    svg.text(kLeft - 8, y + 4, short_number(tick), {.size = 12, .anchor = "end", .colour = kAxis});
  }
  svg.line(kLeft, top + kPlot, kWidth - kRight, top + kPlot, kAxis, 1.2);
  svg.text(kLeft - 58, top + kPlot / 2, panel.y_label,
           {.size = 12.5, .anchor = "middle", .colour = kAxis, .rotate = -90});
}

void draw_bars(Svg& svg, const ChartPanel& panel, const Scale& scale, double top) {
  const auto groups = static_cast<double>(panel.categories.size());
  const auto members = static_cast<double>(panel.series.size());
  const double slot = (kWidth - kLeft - kRight) / std::max(1.0, groups);
  const double width = std::min(64.0, slot * 0.82 / std::max(1.0, members));
  const double size = std::clamp(width / 3.0, 8.5, 12.0);
  for (std::size_t group = 0; group < panel.categories.size(); ++group) {
    const double centre = kLeft + slot * (static_cast<double>(group) + 0.5);
    svg.text(centre, top + kPlot + 21, panel.categories[group], {.anchor = "middle"});
    for (std::size_t s = 0; s < panel.series.size(); ++s) {
      const ChartSeries& series = panel.series[s];
      if (group >= series.values.size() || !series.values[group]) continue;
      const double value = *series.values[group];
      const double x = centre + width * (static_cast<double>(s) - members / 2);
      const double y = scale.y(value);
      const std::string label =
          group < series.labels.size() ? series.labels[group] : short_number(value);
      svg.bar(x + 1.5, y, width - 3, top + kPlot - y,
              {.colour = kColours[s % kColours.size()], .hollow = series.predicted},
              fmt::format("{}, {}: {}", panel.categories[group], series.name, label));
      svg.text(x + width / 2, y - 5, label,
               {.size = size, .anchor = "middle", .colour = "#333", .halo = true});
    }
  }
}

void draw_lines(Svg& svg, const ChartPanel& panel, const Scale& scale) {
  for (const ChartLine& line : panel.lines) {
    const double y = scale.y(line.value);
    svg.line(kLeft, y, kWidth - kRight, y, "#777777", 1.4, true);
    svg.text(kLeft + 6, y - 5, line.label, {.size = 12, .colour = kAxis, .halo = true});
  }
}

void draw_legend(Svg& svg, const ChartPanel& panel, double y) {
  double x = kLeft - 58;
  for (std::size_t s = 0; s < panel.series.size(); ++s) {
    const ChartSeries& series = panel.series[s];
    const double needed = 24 + text_width(series.name, 13) + 22;
    if (x > kLeft && x + needed > kWidth - kRight) {
      x = kLeft - 58;
      y += 22;
    }
    svg.bar(x, y - 11, 15, 13,
            {.colour = kColours[s % kColours.size()], .hollow = series.predicted}, series.name);
    svg.text(x + 22, y, series.name);
    x += needed;
  }
}

}  // namespace

std::vector<double> ticks_to(double top) {
  const double power = std::pow(10, std::floor(std::log10(top)));
  double step = power;
  for (const double factor : {0.1, 0.2, 0.5, 1.0}) {
    step = power * factor;
    if (top / step <= 8) break;
  }
  std::vector<double> ticks;
  for (int i = 0; i * step <= top * (1 + 1e-9); ++i) ticks.push_back(i * step);
  return ticks;
}

std::string to_svg(const Chart& chart) {
  const double head = 46 + 19 * static_cast<double>(chart.notes.size());
  const double legend = 48;
  Svg svg(kWidth, head + legend + kPanel * static_cast<double>(chart.panels.size()));
  svg.text(kLeft - 58, 34, chart.title, {.size = 20, .bold = true});
  double y = 56;
  for (const std::string& note : chart.notes) {
    svg.text(kLeft - 58, y, note, {.size = 13, .colour = kAxis});
    y += 19;
  }
  if (!chart.panels.empty()) draw_legend(svg, chart.panels.front(), head + 20);
  double top = head + legend + 40;
  for (const ChartPanel& panel : chart.panels) {
    const Scale scale(panel, top + kPlot);
    draw_axis(svg, panel, scale, top);
    draw_lines(svg, panel, scale);
    draw_bars(svg, panel, scale, top);
    top += kPanel;
  }
  return svg.finish();
}

}  // namespace annulus::launch
