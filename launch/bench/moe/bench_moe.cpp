#include "launch/bench/moe/bench_moe.h"

#include "launch/agree.h"
#include "launch/bench/measure.h"
#include "launch/bench/moe/check.h"
#include "launch/bench/moe/measure.h"
#include "launch/bench/output.h"
#include "launch/options/grid.h"
#include "launch/progress.h"
#include "launch/ranks_request.h"
#include "launch/request/problem.h"

#include <annulus/collective.h>

#include <algorithm>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

/// One point of a grid, found right before any rank starts.
struct Point {
  Settings settings;
  std::string label, transport;
  MoeRequest request;
  bool forward = true;
  bool backward = true;
};

Point point_of(const Call& call, const GridPoint& grid) {
  const Settings& settings = grid.settings;
  refuse_unbuilt_run(settings);
  refuse_trace(settings, "op = moe plays no plan");
  refuse_device_experts(settings);
  const int world = world_of(settings, call.started);
  Point point{.settings = settings,
              .label = grid.label,
              .transport = transport_of(settings, call.started),
              .request = moe_request_of(settings, world, threads_of(settings, world))};
  point.forward = settings.text("pass") != "backward";
  point.backward = settings.text("pass") != "forward";
  return point;
}

/// Neighbouring tokens, as evenly as they go.
std::vector<std::int64_t> tokens_of(const Mesh& mesh, std::int64_t tokens) {
  const std::int64_t begin = tokens * mesh.rank() / mesh.world();
  const std::int64_t end = tokens * (mesh.rank() + 1) / mesh.world();
  std::vector<std::int64_t> mine;
  for (std::int64_t t = begin; t < end; ++t) mine.push_back(t);
  return mine;
}

/// Starts a new peak of this process's memory and returns it. Collective.
std::int64_t start_memory(Mesh& mesh, const Point& point) {
  barrier(mesh, "bench: before memory");
  if (mesh.rank() == 0 || point.transport != "local") reset_peak_memory();
  barrier(mesh, "bench: memory");
  return peak_memory_bytes();
}

MoeReport run_point(Mesh& mesh, const Point& point) {
  const Settings& settings = point.settings;
  const std::int64_t before = start_memory(mesh, point);
  MoeRun run(mesh, point.request, static_cast<std::uint64_t>(settings.integer("seed")),
             tokens_of(mesh, point.request.tokens), point.backward);
  MoeTimes times;
  const std::int64_t warmup = settings.integer("warmup");
  const std::int64_t calls = settings.integer("iterations");
  Progress progress("bench", warmup + calls, mesh.rank() == 0);
  for (std::int64_t call = -warmup; call < calls; ++call) {
    time_moe(run, call, point.backward, MoeRun::Given::asked, times);
    progress.step(call < 0 ? "warm-up" : "timed");
  }
  MoeReport report = measure_moe(mesh, run, times, point.forward, point.backward);
  std::int64_t growth = peak_memory_bytes() - before;
  if (point.transport == "local") growth /= mesh.world();  // one process holds all ranks
  const std::int64_t most = std::ranges::max(gather_one(mesh, growth));
  if (report.backend == "cpu") report.measured_peak_bytes = most;
  if (settings.text("check") != "none") {
    report.check = check_moe(mesh, run, point.backward, settings.text("check") == "sample");
  }
  time_balanced(mesh, run, calls, point.forward, point.backward, report);
  return report;
}

}  // namespace

int run_bench_moe(const Call& call) {
  std::vector<Point> points;
  std::vector<RanksRequest> runs;
  for (const GridPoint& grid : grid_of(call.settings)) {
    points.push_back(point_of(call, grid));
    runs.push_back(ranks_request_of(grid.settings, call.started));
  }
  BenchOutput output(points.size());
  return run_ranks(runs, [&](Mesh& mesh, std::size_t run) {
    const Point& point = points[run];
    require_same_settings(mesh, point.settings);
    if (run == 0) output.open(mesh, point.settings);
    MoeReport report = run_point(mesh, point);
    report.command_line = call.command_line;
    report.mpi = mpi_version();
    if (mesh.rank() == 0) {
      output.add(point.settings, point.label, to_text(report) + "\n", to_json(report));
    }
    return report.passed() ? kPassed : kCheckFailed;
  });
}

}  // namespace annulus::launch
