#include "launch/options/grid.h"

#include "launch/options/value.h"

#include <fmt/format.h>

namespace annulus::launch {
namespace {

constexpr std::size_t kMostPoints = 10000;

std::vector<std::string> values_of(const Settings& settings, const Key& key) {
  if (!settings.has(key.name) || !may_be_list(key)) return {};
  return split(settings.text(key.name), ',');
}

}  // namespace

std::vector<GridPoint> grid_of(const Settings& settings) {
  std::vector<GridPoint> points{{settings, {}}};
  for (const Key& key : keys()) {
    const std::vector<std::string> values = values_of(settings, key);
    if (values.size() < 2) continue;
    if (points.size() * values.size() > kMostPoints) {
      settings.refuse(key.name, fmt::format("makes the grid larger than {} runs", kMostPoints));
    }
    std::vector<GridPoint> finer;
    for (const GridPoint& point : points) {
      for (const std::string& value : values) {
        finer.push_back(point);
        finer.back().settings.narrow(key.name, value);
        finer.back().label +=
            fmt::format("{}{} {}", point.label.empty() ? "" : ", ", key.name, value);
      }
    }
    points = std::move(finer);
  }
  return points;
}

void refuse_grid(const Settings& settings, std::string_view command) {
  for (const Key& key : keys()) {
    if (values_of(settings, key).size() < 2) continue;
    settings.refuse(key.name, fmt::format("is a list; {} takes one value", command));
  }
}

}  // namespace annulus::launch
