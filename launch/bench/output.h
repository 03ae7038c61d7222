#pragma once

#include "launch/options/settings.h"
#include "launch/output.h"

#include <annulus/mesh.h>
#include <annulus/trace.h>

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace annulus::launch {

/// Where the points of a grid report to; only rank 0's counts. A file appears when the last point
/// is through.
class BenchOutput {
 public:
  explicit BenchOutput(std::size_t points) : points_(points) {}

  /// Found writable before any compute. Collective.
  void open(Mesh& mesh, const Settings& settings);
  /// On rank 0, before its add(): what a point's calls did.
  void keep(TracedRun run) { runs_.push_back(std::move(run)); }
  /// On rank 0: a point's table and line.
  void add(const Settings& settings, const std::string& label, const std::string& text,
           const std::string& json);

 private:
  void commit(bool quiet);
  bool to_standard_output() const {
    return json_->to_standard_output() || trace_->to_standard_output();
  }

  std::unique_ptr<OutputFile> json_;
  std::unique_ptr<OutputFile> trace_;
  std::string lines_;
  std::vector<TracedRun> runs_;
  std::size_t points_;
  std::size_t reported_ = 0;
};

}  // namespace annulus::launch
