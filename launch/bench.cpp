#include "launch/bench/check.h"
#include "launch/bench/measure.h"
#include "launch/bench/report.h"
#include "launch/command.h"
#include "launch/error.h"
#include "launch/output.h"
#include "launch/progress.h"
#include "launch/ranks/ranks.h"
#include "launch/request/problem.h"

#include <annulus/collective.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>
#include <numeric>

namespace annulus::launch {
namespace {

/// What was asked for, found right before any rank starts.
struct BenchRequest {
  const Call& call;
  Problem problem;
  AttentionOptions attention;
  std::string transport;
  int world = 1;
  int threads = 1;
  bool forward = true;  ///< timed; it runs in any case, since backward needs out and lse
  bool backward = true;
};

BenchRequest request_of(const Call& call) {
  const Settings& settings = call.settings;
  refuse_unbuilt_run(settings);
  BenchRequest request{.call = call,
                       .problem = problem_of(settings),
                       .attention = attention_options_of(settings),
                       .transport = transport_of(settings, call.started),
                       .world = world_of(settings, call.started)};
  request.threads = threads_of(settings, request.world);
  request.forward = settings.text("pass") != "backward";
  request.backward = settings.text("pass") != "forward";
  return request;
}

double seconds_of(const auto& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// One rank of the run.
class BenchRank {
 public:
  BenchRank(const BenchRequest& request, Mesh& mesh)
      : request_(request), settings_(request.call.settings), mesh_(mesh) {}

  int run() {
    OutputFile json = open_output();
    const std::int64_t memory_before = start_memory();
    Session session(mesh_, {.max_problem = request_.problem,
                            .algorithm = request_.attention.algorithm,
                            .layout = request_.attention.layout,
                            .backward = request_.backward,
                            .arena = {},
                            .threads = request_.threads});
    Attention attention(session, request_.problem, request_.attention);
    refuse_fallback(attention);
    const Generator generator(seed(), request_.problem.dtype);
    const Shards shards = make_shards(request_.problem, attention.layout(), mesh_.rank(), generator,
                                      request_.backward);
    BenchReport report = describe(attention);
    time(attention, shards, report);
    measure_memory(attention, memory_before, report);
    report.cost = priced(attention.cost());
    if (settings_.text("check") != "none") {
      report.check = check(mesh_,
                           {.problem = request_.problem,
                            .seed = seed(),
                            .backward = request_.backward,
                            .sampled = settings_.text("check") == "sample"},
                           attention.layout(), shards);
    }
    measure_comm(attention, report);  // voids the results: last
    if (mesh_.rank() == 0) print(report, json);
    return report.passed() ? kPassed : kCheckFailed;
  }

 private:
  std::uint64_t seed() const { return static_cast<std::uint64_t>(settings_.integer("seed")); }

  /// Only rank 0's disk counts, and every rank must end alike: so they hear from it.
  OutputFile open_output() {
    std::string error;
    std::unique_ptr<OutputFile> file;
    if (mesh_.rank() == 0 && settings_.has("json")) {
      try {
        file = std::make_unique<OutputFile>(settings_.path("json"), settings_.where("json"));
      } catch (const UsageError& refused) {
        error = refused.what();
      }
    }
    const auto failed = gather_one<int>(mesh_, error.empty() ? 0 : 1);
    if (failed.front() != 0) throw UsageError(error);
    return file ? std::move(*file) : OutputFile({}, "--json");
  }

  void refuse_fallback(const Attention& attention) const {
    const std::string reason = attention.fallback_reason();
    if (reason.empty()) return;
    if (settings_.flag("strict")) settings_.refuse("kernel", "cannot serve: " + reason);
    if (mesh_.rank() == 0) {
      fmt::print(stderr, "annulus: warning: kernel {} runs instead of {}: {}\n",
                 attention.kernel_used(), settings_.text("kernel"), reason);
    }
  }

  std::int64_t start_memory() {
    barrier(mesh_, "bench: before memory");
    // Threads share one process: one of them starts its new peak.
    if (mesh_.rank() == 0 || request_.transport != "local") reset_peak_memory();
    barrier(mesh_, "bench: memory");
    return peak_memory_bytes();
  }

  BenchReport describe(const Attention& attention) const {
    BenchReport report;
    report.problem = request_.problem;
    report.world = mesh_.world();
    report.mesh = mesh_.shape();
    report.algorithm = name_of(attention.algorithm());
    report.layout = request_.attention.layout.name();
    report.transport = mesh_.transport();
    report.kernel_used = attention.kernel_used();
    report.fallback_reason = attention.fallback_reason();
    report.command_line = request_.call.command_line;
    report.mpi = mpi_version();
    report.threads = request_.threads;
    report.hardware_counters = settings_.flag("hardware_counters");
    return report;
  }

  static void forward(Attention& attention, const Shards& s) {
    attention.forward(s.q.view(), s.k.view(), s.v.view(), s.out.view(), s.lse.view());
  }
  static void backward(Attention& attention, const Shards& s) {
    attention.backward(s.dout.view(), s.q.view(), s.k.view(), s.v.view(), s.out.view(),
                       s.lse.view(), s.dq.view(), s.dk.view(), s.dv.view());
  }

  void time(Attention& attention, const Shards& shards, BenchReport& report) {
    const std::int64_t warmup = settings_.integer("warmup");
    const std::int64_t calls = settings_.integer("iterations");
    Progress progress("bench", warmup + calls, mesh_.rank() == 0);
    std::vector<double> forward_s;
    std::vector<double> backward_s;
    for (std::int64_t call = -warmup; call < calls; ++call) {
      barrier(mesh_, "bench: before forward");
      const double f = seconds_of([&] { forward(attention, shards); });
      if (call >= 0) forward_s.push_back(f);
      if (request_.backward) {
        barrier(mesh_, "bench: before backward");
        const double b = seconds_of([&] { backward(attention, shards); });
        if (call >= 0) backward_s.push_back(b);
      }
      progress.step(call < 0 ? "warm-up" : "timed");
    }
    if (request_.forward) report.forward = timing_over_ranks(mesh_, forward_s);
    if (request_.backward) report.backward = timing_over_ranks(mesh_, backward_s);
    fill_throughput(report);
  }

  void fill_throughput(BenchReport& report) const {
    const Problem& p = request_.problem;
    double pairs = 0;
    for (const RowIntervals& row : compile_mask(p)) {
      for (const KeyInterval& keys : row) pairs += static_cast<double>(keys.end - keys.begin);
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
  }

  std::vector<Pass> passes() const {
    if (request_.backward) return {Pass::forward, Pass::backward};
    return {Pass::forward};
  }

  void measure_memory(const Attention& attention, std::int64_t before, BenchReport& report) {
    std::int64_t planned = 0;
    for (const Pass pass : passes()) {
      planned = std::max(planned, attention.plan(pass).rank(mesh_.rank()).peak_bytes());
    }
    std::int64_t growth = peak_memory_bytes() - before;
    if (request_.transport == "local") growth /= mesh_.world();  // one process holds all ranks
    report.planned_peak_bytes = std::ranges::max(gather_one(mesh_, planned));
    report.measured_peak_bytes = std::ranges::max(gather_one(mesh_, growth));
  }

  /// Exposed time of the last timed calls, and of one more round that overlaps nothing: those are
  /// the same transfers alone.
  void measure_comm(Attention& attention, BenchReport& report) {
    std::int64_t sent = 0;
    double exposed = 0;
    double alone = 0;
    for (const Pass pass : passes()) {
      const CallStats stats = attention.stats(pass);
      sent += stats.bytes_sent;
      exposed += stats.exposed_s;
      barrier(mesh_, "bench: before transfers alone");
      alone += attention.transfers_alone(pass).total_s;
    }
    report.bytes_sent = gather_one(mesh_, sent);
    report.exposed_s = std::ranges::max(gather_one(mesh_, exposed));
    report.transfers_alone_s = std::ranges::max(gather_one(mesh_, alone));
    if (std::ranges::max(report.bytes_sent) == 0) return;
    report.overlap = 1.0 - report.exposed_s / report.transfers_alone_s;
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
    CostReport report = price(request);
    report.planned = run.planned;
    report.executed = run.executed;
    return report;
  }

  void print(const BenchReport& report, OutputFile& json) const {
    if (!settings_.flag("quiet")) {
      fmt::print(json.to_standard_output() ? stderr : stdout, "{}", to_text(report));
    }
    if (!json.wanted()) return;
    json.commit(to_json(report) + "\n");
    if (!json.to_standard_output() && !settings_.flag("quiet")) {
      fmt::print("report     {}\n", json.path().string());
    }
    std::fflush(stdout);
  }

  const BenchRequest& request_;
  const Settings& settings_;
  Mesh& mesh_;
};

LogOptions log_options(const Settings& settings) {
  LogOptions log;
  if (settings.has("log_level")) {
    constexpr std::array<std::string_view, 5> kLevels{"debug", "info", "warn", "error", "off"};
    const auto* found = std::ranges::find(kLevels, settings.text("log_level"));
    log.level = static_cast<int>(found - kLevels.begin());
  }
  if (settings.has("log_dir")) log.dir = settings.path("log_dir").string();
  return log;
}

}  // namespace

int run_bench(const Call& call) {
  const Settings& settings = call.settings;
  const BenchRequest request = request_of(call);
  const RanksRequest ranks{
      .started = call.started,
      .shape = mesh_of(settings, request.world),
      .options = {.timeout_s = settings.real("timeout_s"), .log = log_options(settings)},
      .transport = request.transport};
  return run_ranks(ranks, [&](Mesh& mesh) { return BenchRank(request, mesh).run(); });
}

}  // namespace annulus::launch
