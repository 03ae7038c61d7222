#include "launch/bench/trace.h"

#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <algorithm>
#include <utility>

namespace annulus::launch {
namespace {

/// The plans of all ranks are pure functions: rank 0 makes them instead of receiving their names.
TracedCall gathered(Mesh& mesh, const Attention& attention, Pass pass, const CallTrace& mine) {
  TracedCall call{.name = std::string(name_of(pass)), .plans = {}, .ranks = {}};
  call.ranks = gather_traces(mesh, mine);
  for (int r = 0; r < static_cast<int>(call.ranks.size()); ++r) {
    call.plans.push_back(attention.plan(pass).rank(r));
  }
  return call;
}

}  // namespace

Traced trace_calls(Mesh& mesh, Attention& attention, const Place& place,
                   std::span<const Pass> passes) {
  Traced traced;
  double exposed = 0;
  double device_error = 0;
  int uncounted = 0;
  barrier(mesh, "bench: before traced calls");
  attention.record(true);
  for (const Pass pass : passes) {
    (void)place.timed(attention, pass);
    const CallTrace mine = attention.recorded(pass);
    const Exposure e = exposure_of(attention.plan(pass).rank(mesh.rank()), mine);
    exposed += e.exposed_s;
    uncounted |= mine.waits_uncounted() ? 1 : 0;
    device_error = std::max(device_error, mine.clock_error_s);
    const double slowest = std::ranges::max(gather_one(mesh, e.call_s));
    (pass == Pass::forward ? traced.figures.forward_s : traced.figures.backward_s) = slowest;
    TracedCall call = gathered(mesh, attention, pass, mine);
    if (mesh.rank() == 0) traced.run.calls.push_back(std::move(call));
  }
  attention.record(false);
  traced.run.clocks = clock_offsets(mesh);
  traced.exposed_s = std::ranges::max(gather_one(mesh, exposed));
  traced.waits_uncounted = std::ranges::max(gather_one(mesh, uncounted)) != 0;
  const auto device_errors = gather_one(mesh, device_error);
  for (std::size_t r = 0; r < traced.run.clocks.size(); ++r) {
    traced.figures.clock_error_s =
        std::max(traced.figures.clock_error_s, traced.run.clocks[r].error_s + device_errors[r]);
  }
  return traced;
}

}  // namespace annulus::launch
