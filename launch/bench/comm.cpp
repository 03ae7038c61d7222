#include "launch/bench/comm.h"

#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace annulus::launch {
namespace {

constexpr int kReplays = 5;

/// The quickest of some replays, each as long as on its slowest rank: replays do not begin
/// together, and what they wait for each other is not theirs.
template <typename Replay>
double replayed_s(Mesh& mesh, bool quick, const Replay& replay) {
  double quickest = 0;
  for (int i = 0; i < (quick ? kReplays : 1); ++i) {
    barrier(mesh, "bench: before a replay");
    const double slowest = std::ranges::max(gather_one(mesh, replay()));
    if (i == 0 || slowest < quickest) quickest = slowest;
  }
  return quickest;
}

}  // namespace

void measure_comm(Mesh& mesh, Attention& attention, const TimedCalls& timed, BenchReport& report) {
  std::int64_t sent = 0;
  for (const CallStats& stats : timed.last) sent += stats.bytes_sent;
  report.bytes_sent = gather_one(mesh, sent);
  const bool traced = report.exposed_source == "trace";
  if (std::ranges::max(report.bytes_sent) == 0) {
    if (!traced) report.exposed_source = "none";
    return;
  }
  const bool on_device = report.backend == "cuda";
  if (!traced) report.exposed_source = on_device ? "difference" : "wait";
  double exposed = 0;
  for (std::size_t i = 0; i < timed.passes.size(); ++i) {
    const Pass pass = timed.passes[i];
    const CallStats& stats = timed.last[i];
    report.transfers_alone_s +=
        replayed_s(mesh, timed.quick, [&] { return attention.transfers_alone(pass).total_s; });
    if (!on_device) exposed += stats.exposed_s;
    if (traced || !on_device) continue;
    const double compute =
        replayed_s(mesh, timed.quick, [&] { return attention.compute_alone(pass).total_s; });
    exposed += std::max(0.0, stats.total_s - compute);
  }
  if (!traced) report.exposed_s = std::ranges::max(gather_one(mesh, exposed));
  report.overlap = overlap_of(report.exposed_s, report.transfers_alone_s);
}

}  // namespace annulus::launch
