#include "launch/bench/measure.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <string>

namespace annulus::launch {

Timing timing_of(std::vector<double> seconds) {
  if (seconds.empty()) return {};
  std::ranges::sort(seconds);
  const std::size_t n = seconds.size();
  const auto p99 = static_cast<std::size_t>(std::ceil(0.99 * static_cast<double>(n))) - 1;
  return {.median_s = (seconds[(n - 1) / 2] + seconds[n / 2]) / 2,
          .min_s = seconds.front(),
          .max_s = seconds.back(),
          .p99_s = seconds[p99]};
}

Timing timing_over_ranks(Mesh& mesh, std::span<const double> seconds) {
  std::vector<double> all(seconds.size() * static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(seconds), std::as_writable_bytes(std::span(all)),
             "bench: times of the ranks");
  std::vector<double> slowest(seconds.size());
  for (std::size_t i = 0; i < all.size(); ++i) {
    double& worst = slowest[i % seconds.size()];
    worst = std::max(worst, all[i]);
  }
  return timing_of(slowest);
}

std::string first_text(Mesh& mesh, const std::string& mine) {
  std::array<char, 256> text{};
  mine.copy(text.data(), text.size() - 1);
  for (const auto& one : gather_one(mesh, text)) {
    if (one[0] != 0) return one.data();
  }
  return {};
}

void reset_peak_memory() { std::ofstream("/proc/self/clear_refs") << "5"; }

std::int64_t peak_memory_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;) {
    std::int64_t kib = 0;
    if (word == "VmHWM:" && status >> kib) return kib * 1024;
  }
  return 0;
}

std::string processor_name() {
  std::ifstream cpuinfo("/proc/cpuinfo");
  for (std::string line; std::getline(cpuinfo, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

}  // namespace annulus::launch
