#include "launch/bench/output.h"

#include "launch/agree.h"

#include <fmt/format.h>

#include <cstdio>
#include <filesystem>

namespace annulus::launch {
namespace {

std::unique_ptr<OutputFile> file_of(const Settings& settings, std::string_view key) {
  return std::make_unique<OutputFile>(settings.has(key) ? settings.path(key) : "",
                                      settings.where(key));
}

/// One file cannot hold both.
void refuse_one_file(const Settings& settings) {
  if (!settings.has("trace") || !settings.has("json")) return;
  const std::filesystem::path json = settings.path("json");
  if (json == "-" && settings.path("trace") == "-") {
    settings.refuse("trace", "is standard output, and so is json: allowed for one of them");
  }
  if (std::filesystem::absolute(json).lexically_normal() ==
      std::filesystem::absolute(settings.path("trace")).lexically_normal()) {
    settings.refuse("trace", "is also the file of json; allowed: another one");
  }
}

}  // namespace

void BenchOutput::open(Mesh& mesh, const Settings& settings) {
  on_rank_zero(mesh, [&] {
    refuse_one_file(settings);
    json_ = file_of(settings, "json");
    trace_ = file_of(settings, "trace");
  });
}

void BenchOutput::add(const Settings& settings, const std::string& label, const std::string& text,
                      const std::string& json) {
  ++reported_;
  if (!settings.flag("quiet")) {
    std::FILE* to = to_standard_output() ? stderr : stdout;
    if (!label.empty()) {
      fmt::print(to, "{}== run {} of {}: {}\n", reported_ > 1 ? "\n" : "", reported_, points_,
                 label);
    }
    fmt::print(to, "{}", text);
  }
  lines_ += json + "\n";
  commit(settings.flag("quiet") || to_standard_output());
}

/// JSON to the screen at once, files with the last point.
void BenchOutput::commit(bool quiet) {
  const bool last = reported_ == points_;
  if (json_->wanted() && (last || json_->to_standard_output())) {
    json_->commit(lines_);
    lines_.clear();
    if (!quiet) fmt::print("report     {}\n", json_->path().string());
  }
  if (last && trace_->wanted()) trace_->commit(trace_json(runs_));
  std::fflush(stdout);
}

}  // namespace annulus::launch
