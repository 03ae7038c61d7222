#pragma once

#include <optional>
#include <string>
#include <vector>

namespace annulus::launch {

/// One colour of bars. An empty value leaves its place free.
struct ChartSeries {
  std::string name;
  std::vector<std::optional<double>> values;  ///< by category
  std::vector<std::string> labels{};          ///< on the bars; empty: the values
  bool predicted = false;                     ///< hatched outline instead of a filled bar
};

/// A level across a panel.
struct ChartLine {
  double value = 0;
  std::string label;
};

/// One panel of grouped bars.
struct ChartPanel {
  std::string title{};
  std::string y_label{};
  std::vector<std::string> categories{};
  std::vector<ChartSeries> series{};
  std::vector<ChartLine> lines{};
  bool log_scale = false;  ///< powers of ten; values must be above 0
};

struct Chart {
  std::string title{};
  std::vector<std::string> notes{};  ///< below the title
  std::vector<ChartPanel> panels;    ///< one under the other, one legend for all
};

/// A picture that needs nothing else: white ground, the colours of Okabe and Ito, which
/// colour-blind readers tell apart, values written on the bars and as hover text.
std::string to_svg(const Chart& chart);

/// Three digits and k, M, G or T, powers of 1000: "2.23M".
std::string short_number(double value);

/// Round steps that cover [0, top]: 1, 2 or 5 times a power of ten, five to ten of them.
std::vector<double> ticks_to(double top);

}  // namespace annulus::launch
