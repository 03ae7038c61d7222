#include "launch/chart/chart.h"
#include "launch/chart/svg.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>

namespace annulus::launch::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

/// Height of every bar that has hover text, by that text.
double height_of(const std::string& svg, const std::string& hover) {
  const std::regex bar("height=\"([0-9.]+)\"[^>]*><title>" + hover + "</title>");
  std::smatch match;
  return std::regex_search(svg, match, bar) ? std::stod(match[1]) : -1;
}

Chart two_bars(double first, double second, bool log_scale) {
  return {.title = "t",
          .notes = {},
          .panels = {{.title = "p",
                      .y_label = "y",
                      .categories = {"a", "b"},
                      .series = {{.name = "s", .values = {first, second}}},
                      .lines = {},
                      .log_scale = log_scale}}};
}

TEST(Chart, BarsAreAsHighAsTheirValues) {
  const std::string svg = to_svg(two_bars(1, 3, false));
  EXPECT_NEAR(height_of(svg, "b, s: 3") / height_of(svg, "a, s: 1"), 3, 0.01);
}

TEST(Chart, LogScaleGivesEqualStepsToEqualFactors) {
  Chart chart = two_bars(10, 100, true);
  chart.panels[0].categories.push_back("c");
  chart.panels[0].series[0].values.emplace_back(1000);
  const std::string svg = to_svg(chart);
  const double ten = height_of(svg, "a, s: 10");
  const double hundred = height_of(svg, "b, s: 100");
  EXPECT_NEAR(height_of(svg, "c, s: 1k") - hundred, hundred - ten, 0.2);
}

TEST(Chart, MissingValueLeavesItsPlaceFree) {
  Chart chart = two_bars(1, 3, false);
  chart.panels[0].series[0].values[1] = std::nullopt;
  EXPECT_EQ(height_of(to_svg(chart), "b, s: 3"), -1);
}

TEST(Chart, TextCannotBreakTheMarkup) {
  Chart chart = two_bars(1, 3, false);
  chart.title = "a < b & \"c\"";
  const std::string svg = to_svg(chart);
  EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; &quot;c&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("a < b")));
}

TEST(Chart, TicksAreRoundAndFew) {
  EXPECT_THAT(ticks_to(4), ElementsAre(0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4));
  EXPECT_THAT(ticks_to(30), ElementsAre(0, 5, 10, 15, 20, 25, 30));
}

TEST(Chart, NumbersAreShort) {
  EXPECT_EQ(short_number(0.25), "0.25");
  EXPECT_EQ(short_number(2228224), "2.23M");
  EXPECT_EQ(short_number(999.7), "1k");
}

}  // namespace
}  // namespace annulus::launch::test
