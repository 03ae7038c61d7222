#include "launch/bench/moe/measure.h"

#include <annulus/collective.h>
#include <annulus/device_memory.h>
#include <annulus/machine.h>

#include <algorithm>
#include <span>

namespace annulus::launch {
namespace {

/// Rows by expert over all groups: each group's as its first rank has them.
std::vector<std::int64_t> sum_expert_rows(Mesh& mesh, const MoeRun& run) {
  const std::vector<std::int64_t>& rows = run.step().load().expert_rows;
  std::vector<std::int64_t> all(rows.size() * static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(rows)), std::as_writable_bytes(std::span(all)),
             "bench: rows of the experts");
  std::vector<std::int64_t> sum(rows.size());
  const std::size_t of_group = rows.size() * static_cast<std::size_t>(run.layer().expert_degree());
  for (std::size_t first = 0; first < all.size(); first += of_group) {
    for (std::size_t e = 0; e < rows.size(); ++e) sum[e] += all[first + e];
  }
  return sum;
}

}  // namespace

void time_moe(MoeRun& run, std::int64_t call, bool backward, MoeRun::Given given, MoeTimes& times) {
  const double f = run.forward(given);
  if (call >= 0) times.forward.push_back(f);
  if (!backward) return;
  const double b = run.backward();
  if (call >= 0) times.backward.push_back(b);
}

MoeReport measure_moe(Mesh& mesh, MoeRun& run, const MoeTimes& times, bool forward, bool backward) {
  run.fetch();
  const moe::LayerLoad& load = run.step().load();
  const int device = run.layer().device();
  MoeReport report;
  report.backend = run.layer().backend();
  report.device = device >= 0 ? device_name(device) : processor_name();
  report.request = run.request();
  report.world = mesh.world();
  report.transport = run.layer().transport();
  report.kernel = run.layer().kernel_used();
  if (forward) report.forward = timing_over_ranks(mesh, times.forward);
  if (backward) report.backward = timing_over_ranks(mesh, times.backward);
  report.forward_flops = gather_one(mesh, load.forward_flops);
  report.backward_flops = gather_one(mesh, backward ? load.backward_flops : 0);
  report.forward_bytes = gather_one(mesh, load.forward_bytes_sent);
  report.backward_bytes = gather_one(mesh, backward ? load.backward_bytes_sent : 0);
  report.expert_rows = sum_expert_rows(mesh, run);
  report.rank_rows =
      gather_one(mesh, load.rank_rows[static_cast<std::size_t>(run.layer().expert_rank())]);
  report.rank_tokens = gather_one(mesh, static_cast<std::int64_t>(run.tokens().size()));
  for (const std::int64_t n : gather_one(mesh, load.dropped)) report.dropped += n;
  for (const std::int64_t n : gather_one(mesh, load.bad_tokens)) report.bad_tokens += n;
  report.rounds = std::ranges::max(gather_one(mesh, load.rounds));
  report.sent_tokens = load.sent_tokens;
  report.exposed_s =
      std::ranges::max(gather_one(mesh, load.forward_exposed_s + load.backward_exposed_s));
  report.capacity_rows = run.layer().capacity();
  report.measured_peak_bytes = std::ranges::max(gather_one(mesh, run.layer().device_bytes()));
  report.planned_peak_bytes = std::ranges::max(gather_one(mesh, run.bytes()));
  return report;
}

void time_balanced(Mesh& mesh, MoeRun& run, std::int64_t calls, bool forward, bool backward,
                   MoeReport& report) {
  const RoutingKind routing = run.request().routing;
  if (routing == RoutingKind::balanced || routing == RoutingKind::none) return;
  const auto timed = [&](MoeRun::Given given, std::optional<Timing>& f, std::optional<Timing>& b) {
    MoeTimes times;
    for (std::int64_t call = -1; call < calls; ++call) time_moe(run, call, backward, given, times);
    if (forward) f = timing_over_ranks(mesh, times.forward);
    if (backward) b = timing_over_ranks(mesh, times.backward);
  };
  if (routing == RoutingKind::router) {
    run.keep_routing();
    timed(MoeRun::Given::kept, report.kept_forward, report.kept_backward);
  }
  timed(MoeRun::Given::balanced, report.balanced_forward, report.balanced_backward);
}

}  // namespace annulus::launch
