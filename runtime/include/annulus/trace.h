#pragma once

#include <annulus/export.h>
#include <annulus/mesh.h>
#include <annulus/plan.h>

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace annulus {

/// When one item of a plan ran in a recorded call, in seconds of the rank's clock (CLOCK_MONOTONIC;
/// events of a GPU are placed on it).
struct ItemSample {
  std::int32_t item = 0;
  /// This end of a transfer only raised a flag: the other end moved the data.
  bool by_flag = false;
  double begin_s = 0;  ///< a transfer: its waits were over and it was started
  double await_s = 0;  ///< by flag: a stream began to wait for the other end; else begin_s
  double end_s = 0;    ///< a transfer: this rank knew that it was over
};

/// One recorded call of one pass on one rank: a sample for each item of its plan, in plan order.
struct CallTrace {
  Pass pass = Pass::forward;
  double begin_s = 0;
  double end_s = 0;
  double clock_error_s = 0;  ///< of a GPU's clock against the host's; 0 on the CPU
  /// A kernel took keys as they arrived: waiting for them is in its own samples.
  bool waits_inside = false;
  std::vector<ItemSample> samples;
  /// Where waits_inside: how long the GPU's multiprocessors stood still for keys inside kernels, in
  /// the mean of all that launches may take. None: the kernels did not count it.
  std::optional<double> waited_s{};

  /// Some waiting is in no sample and was not counted.
  bool waits_uncounted() const { return waits_inside && !waited_s; }
};

/// How a call's time divides: call_s = compute_s + exposed_s + idle_s, and transfer_s = exposed_s +
/// what compute covered.
struct Exposure {
  double call_s = 0;
  double compute_s = 0;   ///< an item that computes runs
  double transfer_s = 0;  ///< a transfer is under way, waiting for its other end included
  double exposed_s = 0;   ///< a transfer is under way and nothing computes
  double idle_s = 0;      ///< neither: between launches
};

/// Pure. A transfer by flag counts from where its stream began to wait for it. What lies outside
/// the call does not count. What kernels waited inside (waited_s) is exposed and not compute, at
/// most as much as compute covers of transfers.
ANNULUS_API Exposure exposure_of(const RankPlan& plan, const CallTrace& trace);

/// 1 - exposed / the same transfers alone; none where nothing moves.
ANNULUS_API std::optional<double> overlap_of(double exposed_s, double transfers_alone_s);

/// A rank's clock minus rank 0's, and by how much that may be wrong.
struct ClockOffset {
  double offset_s = 0;
  double error_s = 0;
};

/// One round trip between rank 0, whose clock read begin_s and end_s around it, and another rank,
/// which read there_s in between.
struct ClockProbe {
  double begin_s = 0;
  double there_s = 0;
  double end_s = 0;
};

/// Pure. From the shortest round trip, whose half is the error. Ranks of one machine read the same
/// clock: 0 exactly, unless the probes contradict it (a time namespace).
ANNULUS_API ClockOffset clock_offset_of(std::span<const ClockProbe> probes, bool same_machine);

/// Of every rank, in rank order, on rank 0; empty elsewhere. Collective: round trips by send() and
/// receive(), one rank after the other. Not while a call runs.
ANNULUS_API std::vector<ClockOffset> clock_offsets(Mesh& mesh);

/// Every rank's, in rank order, on rank 0; empty elsewhere. Collective.
ANNULUS_API std::vector<CallTrace> gather_traces(Mesh& mesh, const CallTrace& mine);

/// A call of all ranks, as rank 0 gathered it.
struct TracedCall {
  std::string name;  ///< "forward"
  std::vector<RankPlan> plans;
  std::vector<CallTrace> ranks;
};

/// Calls that share their clocks, one after the other: a run.
struct TracedRun {
  std::string label;  ///< empty: the only one
  std::vector<ClockOffset> clocks;
  std::vector<TracedCall> calls;
};

/// Chrome's JSON trace format, which Perfetto (ui.perfetto.dev) reads. A process is a rank. Its
/// rows are the calls, what computes, and a link for each peer and direction. Names of items are
/// describe()'s. Microseconds from the first call on rank 0's clock; runs follow each other at
/// once.
///
/// Events of a row do not overlap: several transfers may be under way on a link, but each is drawn
/// from when the one before it was over. `args` has when it was started. A transfer of which this
/// end only raised a flag is drawn where the other end moved it.
ANNULUS_API std::string trace_json(std::span<const TracedRun> runs);

}  // namespace annulus
