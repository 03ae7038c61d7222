#pragma once

#include "launch/bench/check.h"
#include "launch/bench/hidden.h"
#include "launch/bench/measure.h"
#include "launch/bench/mfu.h"
#include "launch/bench/moe/kinds.h"
#include "launch/bench/trace.h"

#include <annulus/annulus.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace annulus::launch {

/// Everything that one run of `bench` found out; what the table and the JSON show.
struct BenchReport {
  Problem problem;  ///< resolved
  int world = 1;
  MeshShape mesh;
  std::string algorithm, layout;
  std::string backend, device;
  std::string transport, transport_reason;
  std::string kernel_used, fallback_reason;
  int sm_limit = 0;                          ///< as asked for
  std::string_view backward_moves = "keys";  ///< what travels, not what was asked for
  std::optional<Timing> forward, backward;
  std::optional<HiddenCosts> forward_hidden, backward_hidden;  ///< GPUs, short calls
  std::int64_t forward_transfers = 0;  ///< of the busiest rank, sends and receives
  std::int64_t backward_transfers = 0;
  double forward_tflops_per_rank = 0;
  double backward_tflops_per_rank = 0;
  double tflops_per_rank =
      0;            ///< of the timed passes together: their FLOPs over their medians' sum
  MatrixPeak peak;  ///< of one rank
  std::optional<CheckReport> check;
  std::int64_t planned_peak_bytes = 0;
  std::int64_t measured_peak_bytes = 0;
  std::vector<std::int64_t> bytes_sent;  ///< by rank, all passes
  double exposed_s = 0;
  /// "trace": recorded calls; "none": nothing moves; "wait": waiting in the last timed calls, on
  /// the CPU; "difference": of the last timed calls and compute alone, where kernels of a GPU wait
  /// and do not count it
  std::string exposed_source = "wait";
  double transfers_alone_s = 0;   ///< the same transfers with nothing computed
  std::optional<double> overlap;  ///< none without transfers
  CostReport cost;
  std::string command_line, mpi;
  int threads = 1;
  bool hardware_counters = false;
  std::optional<TraceFigures> recorded;
  std::vector<KindReport> kinds;  ///< op layer

  bool passed() const {
    return (!check || check->passed()) &&
           std::ranges::all_of(kinds, [](const KindReport& k) { return k.ffn.passed(); });
  }
};

std::string to_text(const BenchReport& report);
/// Schema annulus.bench/1.
std::string to_json(const BenchReport& report);

}  // namespace annulus::launch
