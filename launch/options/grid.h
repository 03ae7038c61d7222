#pragma once

#include "launch/options/settings.h"

#include <string>
#include <vector>

namespace annulus::launch {

/// One run of a grid.
struct GridPoint {
  Settings settings;  ///< every value is one value
  std::string label;  ///< "seq 8k, algorithm ring": what differs; empty for a single run
};

/// Every combination of the lists among the values, the last key of the table fastest. Throws
/// UsageError for more than 10000 points.
std::vector<GridPoint> grid_of(const Settings& settings);

/// Throws UsageError where a value is a list.
void refuse_grid(const Settings& settings, std::string_view command);

}  // namespace annulus::launch
