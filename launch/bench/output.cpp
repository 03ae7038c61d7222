#include "launch/bench/output.h"

#include "launch/agree.h"

#include <fmt/format.h>

#include <cstdio>

namespace annulus::launch {

void BenchOutput::open(Mesh& mesh, const Settings& settings) {
  on_rank_zero(mesh, [&] {
    json_ = std::make_unique<OutputFile>(settings.has("json") ? settings.path("json") : "",
                                         settings.where("json"));
  });
}

void BenchOutput::add(const Settings& settings, const std::string& label, const std::string& text,
                      const std::string& json) {
  ++reported_;
  if (!settings.flag("quiet")) {
    std::FILE* to = json_->to_standard_output() ? stderr : stdout;
    if (!label.empty()) {
      fmt::print(to, "{}== run {} of {}: {}\n", reported_ > 1 ? "\n" : "", reported_, points_,
                 label);
    }
    fmt::print(to, "{}", text);
  }
  if (!json_->wanted()) return;
  lines_ += json + "\n";
  if (!json_->to_standard_output() && reported_ < points_) return;
  json_->commit(lines_);
  lines_.clear();
  if (!json_->to_standard_output() && !settings.flag("quiet")) {
    fmt::print("report     {}\n", json_->path().string());
  }
  std::fflush(stdout);
}

}  // namespace annulus::launch
