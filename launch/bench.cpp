#include "launch/agree.h"
#include "launch/bench/check.h"
#include "launch/bench/comm.h"
#include "launch/bench/hardware.h"
#include "launch/bench/hidden.h"
#include "launch/bench/measure.h"
#include "launch/bench/moe/bench_moe.h"
#include "launch/bench/output.h"
#include "launch/bench/place.h"
#include "launch/bench/report.h"
#include "launch/bench/suites/suite.h"
#include "launch/bench/trace.h"
#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/progress.h"
#include "launch/ranks_request.h"
#include "launch/request/moe.h"
#include "launch/request/problem.h"

#include <annulus/collective.h>

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace annulus::launch {
namespace {

/// What was asked for, found right before any rank starts.
struct BenchRequest {
  Call call;  ///< of one point of the grid
  std::string label;
  Problem problem;
  AttentionOptions attention;
  std::string transport;
  int world = 1;
  int threads = 1;
  bool forward = true;  ///< timed; it runs in any case, since backward needs out and lse
  bool backward = true;
  std::vector<KindRequest> kinds{};  ///< op layer
};

/// Everything that can be found wrong with one point, before any of them runs.
BenchRequest request_of(const Call& call, const GridPoint& point) {
  const Settings& settings = point.settings;
  refuse_unbuilt_run(settings);
  BenchRequest request{.call = {.settings = settings,
                                .line = call.line,
                                .started = call.started,
                                .command_line = call.command_line},
                       .label = point.label,
                       .problem = problem_of(settings),
                       .attention = attention_options_of(settings),
                       .transport = transport_of(settings, call.started),
                       .world = world_of(settings, call.started)};
  if (settings.text("op") == "local" && request.world != 1) {
    settings.refuse("op", fmt::format("runs one kernel on one rank, not on {}", request.world));
  }
  request.threads = threads_of(settings, request.world);
  refuse_fallback(settings, request.problem);
  const MaskTiles compiles(request.problem, 128, 128);  // throws for masks that cannot be
  request.forward = settings.text("pass") != "backward";
  request.backward = settings.text("pass") != "forward";
  if (settings.text("op") == "layer") {
    refuse_device_experts(settings);
    request.kinds = kind_requests_of(settings, request.world, request.threads);
  }
  return request;
}

/// Seconds of the timed calls of one pass.
struct Samples {
  std::vector<double> device_s, host_s;

  void add(const CallTime& time) {
    device_s.push_back(time.device_s);
    host_s.push_back(time.host_s);
  }
};

constexpr double kShortCall = 0.5;

/// One rank of one point.
class BenchRank {
 public:
  BenchRank(const BenchRequest& request, Mesh& mesh, BenchOutput& output)
      : request_(request), settings_(request.call.settings), mesh_(mesh), output_(output) {}

  int run(bool first) {
    require_same_settings(mesh_, settings_);
    if (first) output_.open(mesh_, settings_);
    start_memory();
    SessionOptions options{.max_problem = request_.problem,
                           .algorithm = request_.attention.algorithm,
                           .layout = request_.attention.layout,
                           .outer = request_.attention.outer,
                           .kernel = request_.attention.kernel,
                           .backward = request_.backward,
                           .threads = request_.threads};
    place_session(settings_, options);
    Session session(mesh_, options);
    Attention attention(session, request_.problem, request_.attention);
    const Generator generator(seed(), request_.problem.dtype);
    const Shards shards = make_shards(request_.problem, attention.layout(), mesh_.rank(), generator,
                                      request_.backward, fillers(mesh_.world(), request_.threads));
    const Place place(mesh_, session, shards);
    BenchReport report = describe(session, attention);
    KindRuns kinds(mesh_, request_.kinds, seed(), tokens_of(attention.layout()), request_.backward);
    const auto [forward, backward] = time(attention, place, kinds, report);
    measure_memory(attention, session, report);
    place.download(attention);
    report.cost = priced(attention.cost());
    if (report.hardware_counters && place.on_device()) {
      count_hardware(mesh_,
                     {request_.problem, request_.attention, options, session.device(), passes()},
                     attention, place, report.cost);
    }
    if (settings_.text("check") != "none") {
      report.check = check(mesh_,
                           {.problem = request_.problem,
                            .seed = seed(),
                            .backward = request_.backward,
                            .sampled = settings_.text("check") == "sample"},
                           attention.layout(), shards);
    }
    const std::vector<CallStats> timed = last_calls(attention);
    record(attention, place, report);
    measure_comm(mesh_, attention, {passes(), timed, quick(report)}, report);  // voids the results
    report.kinds =
        kinds.finish(settings_, forward.device_s, backward.device_s, report.measured_peak_bytes);
    if (mesh_.rank() == 0) {
      output_.add(settings_, request_.label, to_text(report), to_json(report));
    }
    return report.passed() ? kPassed : kCheckFailed;
  }

 private:
  std::uint64_t seed() const { return static_cast<std::uint64_t>(settings_.integer("seed")); }

  /// Of the CPU's memory.
  void start_memory() {
    barrier(mesh_, "bench: before memory");
    // Threads share one process: one of them starts its new peak.
    if (mesh_.rank() == 0 || request_.transport != "local") reset_peak_memory();
    barrier(mesh_, "bench: memory");
    memory_before_ = peak_memory_bytes();
  }

  BenchReport describe(const Session& session, const Attention& attention) const {
    BenchReport report;
    report.problem = request_.problem;
    report.world = mesh_.world();
    report.mesh = mesh_.shape();
    report.algorithm = name_of(attention.algorithm());
    report.layout = request_.attention.layout.name();
    report.backend = session.backend();
    report.device = session.device() >= 0 ? device_name(session.device()) : processor_name();
    report.peak = matrix_peak_of(session.device(), report.problem.dtype);
    report.transport = session.transport();
    report.transport_reason = session.transport_reason();
    report.kernel_used = attention.kernel_used();
    report.fallback_reason = attention.fallback_reason();
    report.sm_limit = request_.attention.sm_limit;
    if (request_.backward) {
      report.backward_moves = name_of(attention.plan(Pass::backward).backward_moves());
    }
    report.command_line = request_.call.command_line;
    report.mpi = mpi_version();
    report.threads = request_.threads;
    report.hardware_counters = settings_.flag("hardware_counters");
    return report;
  }

  /// The tokens of this rank's shard, batch by batch.
  std::vector<std::int64_t> tokens_of(const Sharding& sharding) const {
    std::vector<std::int64_t> tokens;
    for (std::int64_t b = 0; b < request_.problem.batch; ++b) {
      for (const std::int64_t position : sharding.positions(mesh_.rank())) {
        tokens.push_back(b * request_.problem.seq + position);
      }
    }
    return tokens;
  }

  /// A step's order: attention, the FFN of each kind, and the same back. Attention's samples.
  std::pair<Samples, Samples> time(Attention& attention, const Place& place, KindRuns& kinds,
                                   BenchReport& report) {
    const std::int64_t warmup = settings_.integer("warmup");
    const std::int64_t calls = settings_.integer("iterations");
    Progress progress("bench", warmup + calls, mesh_.rank() == 0);
    Samples forward;
    Samples backward;
    for (std::int64_t call = -warmup; call < calls; ++call) {
      const CallTime f = place.time(attention, Pass::forward);
      if (call >= 0) forward.add(f);
      kinds.time(call);
      if (request_.backward) {
        const CallTime b = place.time(attention, Pass::backward);
        if (call >= 0) backward.add(b);
      }
      progress.step(call < 0 ? "warm-up" : "timed");
    }
    if (request_.forward) report.forward = timing_over_ranks(mesh_, forward.device_s);
    if (request_.backward) report.backward = timing_over_ranks(mesh_, backward.device_s);
    fill_throughput(report);
    report.forward_transfers = most_transfers(attention, Pass::forward);
    if (request_.backward) report.backward_transfers = most_transfers(attention, Pass::backward);
    if (!place.on_device()) return {forward, backward};
    if (short_enough(report.forward)) {
      report.forward_hidden = hidden_costs(mesh_, attention, Pass::forward, place, forward.host_s);
    }
    if (short_enough(report.backward)) {
      report.backward_hidden =
          hidden_costs(mesh_, attention, Pass::backward, place, backward.host_s);
    }
    return {forward, backward};
  }

  /// What the host costs is lost in longer calls.
  static bool short_enough(const std::optional<Timing>& timing) {
    return timing && timing->median_s > 0 && timing->median_s < kShortCall;
  }

  std::int64_t most_transfers(const Attention& attention, Pass pass) const {
    const std::int64_t mine = attention.plan(pass).rank(mesh_.rank()).transfer_count;
    return std::ranges::max(gather_one(mesh_, mine));
  }

  void fill_throughput(BenchReport& report) const {
    const Problem& p = request_.problem;
    double pairs = 0;
    const KeyLists mask = compile_mask(p);
    for (const KeyInterval& keys : mask.intervals()) {
      pairs += static_cast<double>(keys.end - keys.begin);
    }
    const double each = 2.0 * static_cast<double>(p.batch * p.heads) * pairs /
                        static_cast<double>(mesh_.world()) * 1e-12;
    const auto dim = static_cast<double>(p.head_dim);
    const auto dim_v = static_cast<double>(*p.head_dim_v);
    const auto rate = [&](const std::optional<Timing>& timing, double width) {
      return timing && timing->median_s > 0 ? each * width / timing->median_s : 0.0;
    };
    report.forward_tflops_per_rank = rate(report.forward, dim + dim_v);
    report.backward_tflops_per_rank = rate(report.backward, 3 * dim + 2 * dim_v);
    double tflop = 0;
    double seconds = 0;
    const auto add = [&](const std::optional<Timing>& timing, double tflops) {
      if (!timing) return;
      tflop += tflops * timing->median_s;
      seconds += timing->median_s;
    };
    add(report.forward, report.forward_tflops_per_rank);
    add(report.backward, report.backward_tflops_per_rank);
    report.tflops_per_rank = seconds > 0 ? tflop / seconds : 0.0;
  }

  std::vector<Pass> passes() const {
    if (request_.backward) return {Pass::forward, Pass::backward};
    return {Pass::forward};
  }

  void measure_memory(const Attention& attention, const Session& session, BenchReport& report) {
    std::int64_t planned = 0;
    for (const Pass pass : passes()) {
      planned = std::max(planned, attention.plan(pass).rank(mesh_.rank()).peak_bytes());
    }
    std::int64_t growth = peak_memory_bytes() - memory_before_;
    if (request_.transport == "local") growth /= mesh_.world();  // one process holds all ranks
    if (session.device() >= 0) growth = session.device_bytes();
    report.planned_peak_bytes = std::ranges::max(gather_one(mesh_, planned));
    report.measured_peak_bytes = std::ranges::max(gather_one(mesh_, growth));
  }

  std::vector<CallStats> last_calls(const Attention& attention) const {
    std::vector<CallStats> stats;
    for (const Pass pass : passes()) stats.push_back(attention.stats(pass));
    return stats;
  }

  /// Exposed time, and the trace where one is wanted. On the CPU a call counts by itself what it
  /// waited.
  void record(Attention& attention, const Place& place, BenchReport& report) {
    // Reports are rank 0's alone: its word decides what all of them call.
    const bool file = gather_one(mesh_, settings_.has("trace") ? 1 : 0).front() != 0;
    const bool moves = report.forward_transfers + report.backward_transfers > 0;
    if (!file && (!place.on_device() || !moves)) return;
    const std::vector<Pass> recorded = passes();
    const int calls = quick(report) ? Recording::kWarm + Recording::kMostKept : 1;
    Traced traced = record_calls(mesh_, attention, place, {recorded, calls, file});
    if (!traced.waits_uncounted) report.exposed_source = "trace";
    report.exposed_s = traced.exposed_s;
    report.recorded = traced.figures;
    if (!file) return;
    if (mesh_.rank() == 0) report.recorded->file = settings_.path("trace").string();
    traced.run.label = request_.label;
    if (mesh_.rank() == 0) output_.keep(std::move(traced.run));
  }

  /// A few calls more take no time to speak of.
  static bool quick(const BenchReport& report) {
    return report.backend == "cuda" &&
           short_enough(report.backward ? report.backward : report.forward);
  }

  /// The library prices one layer of this call; the deployment's keys come from the settings.
  CostReport priced(const CostReport& run) const {
    const CostRequest asked = cost_keys_of(settings_);
    CostRequest request = run.request;
    request.layers = asked.layers;
    request.tp = asked.tp;
    request.ep = asked.ep;
    request.softmax_factor = asked.softmax_factor;
    request.mode = asked.mode;
    request.mode_source = asked.mode_source;
    request.policy = asked.policy;
    request.layer_kinds = asked.layer_kinds;
    request.peak_tflops = asked.peak_tflops;
    request.peak_source = asked.peak_source;
    CostReport report = price(request);
    report.planned = run.planned;
    report.executed = run.executed;
    return report;
  }

  const BenchRequest& request_;
  const Settings& settings_;
  Mesh& mesh_;
  BenchOutput& output_;
  std::int64_t memory_before_ = 0;
};

}  // namespace

int run_bench(const Call& call) {
  if (call.settings.has("suite")) {
    refuse_grid(call.settings, "a suite");
    refuse_unbuilt_run(call.settings);
    refuse_trace(call.settings, "a suite times kernels and whole calls");
    return call.settings.text("suite") == "classic" ? run_classic_suite(call)
                                                    : run_accounting_suite(call);
  }
  if (call.settings.text("op") == "moe") return run_bench_moe(call);
  std::vector<BenchRequest> points;
  std::vector<RanksRequest> runs;
  for (const GridPoint& point : grid_of(call.settings)) {
    points.push_back(request_of(call, point));
    runs.push_back(ranks_request_of(point.settings, call.started));
  }
  BenchOutput output(points.size());
  return run_ranks(runs, [&](Mesh& mesh, std::size_t run) {
    return BenchRank(points[run], mesh, output).run(run == 0);
  });
}

}  // namespace annulus::launch
