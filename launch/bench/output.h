#pragma once

#include "launch/options/settings.h"
#include "launch/output.h"

#include <annulus/mesh.h>

#include <cstddef>
#include <memory>
#include <string>

namespace annulus::launch {

/// Where the points of a grid report to; only rank 0's counts. A file appears when the last point
/// is through.
class BenchOutput {
 public:
  explicit BenchOutput(std::size_t points) : points_(points) {}

  /// Found writable before any compute. Collective.
  void open(Mesh& mesh, const Settings& settings);
  /// On rank 0: a point's table and line.
  void add(const Settings& settings, const std::string& label, const std::string& text,
           const std::string& json);

 private:
  std::unique_ptr<OutputFile> json_;
  std::string lines_;
  std::size_t points_;
  std::size_t reported_ = 0;
};

}  // namespace annulus::launch
