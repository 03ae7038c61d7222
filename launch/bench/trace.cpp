#include "launch/bench/trace.h"

#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

namespace annulus::launch {
namespace {

/// One pass on this rank: its recorded calls.
struct PassCalls {
  Pass pass = Pass::forward;
  RankPlan plan;
  std::vector<CallTrace> mine;
  std::vector<double> slowest_s;  ///< of all ranks, by call

  const CallTrace& typical() const { return mine[typical_call(slowest_s)]; }
};

void record_one(Mesh& mesh, Attention& attention, const Place& place, PassCalls& calls) {
  (void)place.timed(attention, calls.pass);
  calls.mine.push_back(attention.recorded(calls.pass));
  const double call_s = exposure_of(calls.plan, calls.mine.back()).call_s;
  calls.slowest_s.push_back(std::ranges::max(gather_one(mesh, call_s)));
}

/// The plans of all ranks are pure functions: rank 0 makes them instead of receiving their names.
TracedCall gathered(Mesh& mesh, const Attention& attention, Pass pass, const CallTrace& mine) {
  TracedCall call{.name = std::string(name_of(pass)), .plans = {}, .ranks = {}};
  call.ranks = gather_traces(mesh, mine);
  for (int r = 0; r < static_cast<int>(call.ranks.size()); ++r) {
    call.plans.push_back(attention.plan(pass).rank(r));
  }
  return call;
}

void gather_run(Mesh& mesh, const Attention& attention, const std::vector<PassCalls>& passes,
                Traced& traced) {
  double device_error = 0;
  for (const PassCalls& calls : passes) {
    device_error = std::max(device_error, calls.typical().clock_error_s);
    TracedCall call = gathered(mesh, attention, calls.pass, calls.typical());
    if (mesh.rank() == 0) traced.run.calls.push_back(std::move(call));
  }
  traced.run.clocks = clock_offsets(mesh);
  const auto device_errors = gather_one(mesh, device_error);
  for (std::size_t r = 0; r < traced.run.clocks.size(); ++r) {
    traced.figures.clock_error_s =
        std::max(traced.figures.clock_error_s, traced.run.clocks[r].error_s + device_errors[r]);
  }
}

}  // namespace

std::size_t typical_call(std::span<const double> seconds) {
  const auto kept = std::min<std::size_t>(seconds.size(), Recording::kMostKept);
  std::vector<std::size_t> calls(kept);
  std::iota(calls.begin(), calls.end(), seconds.size() - kept);
  const auto middle = calls.begin() + static_cast<std::ptrdiff_t>(kept / 2);
  std::ranges::nth_element(calls, middle, {}, [&](std::size_t c) { return seconds[c]; });
  return *middle;
}

Traced record_calls(Mesh& mesh, Attention& attention, const Place& place,
                    const Recording& recording) {
  std::vector<PassCalls> passes;
  for (const Pass pass : recording.passes) {
    passes.push_back({pass, attention.plan(pass).rank(mesh.rank()), {}, {}});
  }
  barrier(mesh, "bench: before recorded calls");
  attention.record(true);
  for (int call = 0; call < recording.calls; ++call) {
    for (PassCalls& calls : passes) record_one(mesh, attention, place, calls);
  }
  attention.record(false);
  Traced traced;
  traced.figures.held = place.holds();
  double exposed = 0;
  int uncounted = 0;
  for (const PassCalls& calls : passes) {
    const CallTrace& mine = calls.typical();
    exposed += exposure_of(calls.plan, mine).exposed_s;
    uncounted |= mine.waits_uncounted() ? 1 : 0;
    auto& slowest =
        calls.pass == Pass::forward ? traced.figures.forward_s : traced.figures.backward_s;
    slowest = calls.slowest_s[typical_call(calls.slowest_s)];
  }
  traced.exposed_s = std::ranges::max(gather_one(mesh, exposed));
  traced.waits_uncounted = std::ranges::max(gather_one(mesh, uncounted)) != 0;
  if (recording.file) gather_run(mesh, attention, passes, traced);
  return traced;
}

}  // namespace annulus::launch
