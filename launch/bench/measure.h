#pragma once

#include <annulus/annulus.h>
#include <annulus/collective.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace annulus::launch {

/// Of the timed calls of one pass; each call counts as its slowest rank, which sets the step.
struct Timing {
  double median_s = 0;
  double min_s = 0;
  double max_s = 0;
  double p99_s = 0;
};

/// `seconds` by call; collective.
Timing timing_over_ranks(Mesh& mesh, std::span<const double> seconds);
Timing timing_of(std::vector<double> seconds);

/// One value of every rank, in rank order; collective.
template <typename T>
std::vector<T> gather_one(Mesh& mesh, const T& mine) {
  std::vector<T> all(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)),
             "bench: figures of the ranks");
  return all;
}

/// The text of the lowest rank that has one; collective.
std::string first_text(Mesh& mesh, const std::string& mine);

/// Starts a new peak of this process's memory, where the kernel allows it.
void reset_peak_memory();
/// VmHWM in bytes.
std::int64_t peak_memory_bytes();
/// "model name" of /proc/cpuinfo.
std::string processor_name();

}  // namespace annulus::launch
