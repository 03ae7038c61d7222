#include "launch/bench/hardware.h"

#include "launch/bench/measure.h"

#include <annulus/counters.h>

#include <numeric>
#include <string>

namespace annulus::launch {
namespace {

constexpr double kMostNaiveBytes = 4.0 * (1 << 30);

/// One call. False on every rank where one could not read.
bool read(Mesh& mesh, HardwareCounters& counters, Attention& attention, Pass pass,
          const Place& place, std::vector<std::int64_t>& ops, std::vector<std::int64_t>& bytes,
          std::string& why_not) {
  const HardwareReadings& found =
      counters.measure(nullptr, [&] { (void)place.timed(attention, pass); });
  why_not = first_text(mesh, found.unavailable);
  if (!why_not.empty()) return false;
  ops = gather_one(mesh, found.tensor_ops.value_or(0));
  bytes = gather_one(mesh, found.dram_bytes());
  return true;
}

/// Of the same plan with the naive kernel, in a session of its own; 0 where that cannot be.
double efficiency_of(Mesh& mesh, const HardwareRequest& request, HardwareCounters& counters,
                     const Attention& attention, const Place& place, const HardwareCounts& counts) {
  if (attention.kernel_used() == "naive") return 1.0;
  if (!naive_fits(request.problem, mesh.world())) return 0.0;
  try {
    SessionOptions where = request.session;
    where.kernel = "naive";
    where.backward = false;
    AttentionOptions options = request.attention;
    options.kernel = "naive";
    Session session(mesh, where);
    Attention naive(session, request.problem, options);
    (void)place.timed(naive, Pass::forward);
    std::vector<std::int64_t> ops;
    std::vector<std::int64_t> bytes;
    std::string why_not;
    if (!read(mesh, counters, naive, Pass::forward, place, ops, bytes, why_not)) return 0.0;
    return memory_efficiency(bytes, counts.hbm_bytes_rank_layer);
  } catch (const InvalidArgument&) {  // ranks agree on what a session lacks
  } catch (const DeviceError&) {
  } catch (const Unsupported&) {
  }
  return 0.0;
}

}  // namespace

bool naive_fits(const Problem& problem, int world) {
  const Problem p = resolved(problem);
  constexpr double kBytesAPair = 8.0;  // S and P
  return kBytesAPair * static_cast<double>(p.batch * p.heads) * static_cast<double>(p.seq) *
             static_cast<double>(*p.seq_kv) / world <=
         kMostNaiveBytes;
}

double memory_efficiency(std::span<const std::int64_t> naive, std::span<const std::int64_t> other) {
  const auto sum = [](std::span<const std::int64_t> bytes) {
    return static_cast<double>(std::accumulate(bytes.begin(), bytes.end(), std::int64_t{0}));
  };
  return sum(other) > 0 ? sum(naive) / sum(other) : 0.0;
}

void count_hardware(Mesh& mesh, const HardwareRequest& request, Attention& attention,
                    const Place& place, CostReport& cost) {
  HardwareCounters counters(request.device, request.problem.dtype);
  std::string& why_not = cost.hardware_unavailable;
  why_not = first_text(mesh, counters.unavailable());
  if (!why_not.empty()) return;
  HardwareCounts& counts = cost.hardware;
  counts.source = counters.source();
  for (const Pass pass : request.passes) {
    const bool forward = pass == Pass::forward;
    if (!read(mesh, counters, attention, pass, place,
              forward ? counts.flops_rank_layer : counts.backward_flops_rank_layer,
              forward ? counts.hbm_bytes_rank_layer : counts.backward_hbm_bytes_rank_layer,
              why_not)) {
      return;
    }
  }
  counts.memory_efficiency = efficiency_of(mesh, request, counters, attention, place, counts);
}

}  // namespace annulus::launch
