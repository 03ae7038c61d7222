#include "launch/bench/suites/accounting.h"

#include "launch/bench/place.h"
#include "launch/bench/tensors.h"
#include "launch/error.h"
#include "launch/progress.h"
#include "launch/ranks/ranks.h"
#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <thread>

namespace annulus::launch {
namespace {

/// Processor time of this thread: it leaves out what other threads did on the same core.
double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

/// All ranks of one point; rank 0 fills `point`.
class AccountingRank {
 public:
  AccountingRank(const Settings& settings, const Problem& problem, AccountingRun& run, Mesh& mesh)
      : settings_(settings), problem_(problem), run_(run), mesh_(mesh) {}

  int measure(AccountingPoint& point, Progress* progress) {
    AttentionOptions options = attention_options_of(settings_);
    SessionOptions where{.max_problem = problem_,
                         .algorithm = options.algorithm,
                         .layout = options.layout,
                         .backward = false};
    place_session(settings_, where);
    Session session(mesh_, where);
    Attention attention(session, problem_, options);
    const Generator generator(static_cast<std::uint64_t>(settings_.integer("seed")),
                              problem_.dtype);
    const Shards shards = make_shards(problem_, attention.layout(), mesh_.rank(), generator, false);
    const Place place(mesh_, session, shards);
    run_.device = session.device() >= 0 ? device_name(session.device()) : processor_name();
    time(attention, place, point, progress);
    const CostReport cost = attention.cost();
    if (mesh_.rank() != 0) return kPassed;
    point.original_macs = sum(cost.original);
    point.corrected_macs = sum(cost.corrected);
    point.exact_flops = cost.exact.masked_flops_rank_layer;
    point.executed_flops = cost.executed.flops_rank_layer;
    run_.kernel = attention.kernel_used();
    run_.algorithm =
        name_of(attention.algorithm());  // sp = 1 has nothing to choose: the last stays
    return kPassed;
  }

 private:
  static std::int64_t sum(const MacAccounting& macs) {
    return macs.logit_macs_rank_layer + macs.attend_macs_rank_layer;
  }

  void time(Attention& attention, const Place& place, AccountingPoint& point, Progress* progress) {
    std::vector<double> wall;
    std::vector<double> cpu;
    for (std::int64_t call = -settings_.integer("warmup"); call < run_.calls; ++call) {
      const double before = thread_seconds();
      const double seconds = place.timed(attention, Pass::forward);
      if (call >= 0) {
        // A GPU's rank has it to itself: its time is the call's.
        cpu.push_back(place.on_device() ? seconds : thread_seconds() - before);
        wall.push_back(seconds);
      }
      if (progress != nullptr) progress->step(fmt::format("sp {}", point.sp));
    }
    const Timing forward = timing_over_ranks(mesh_, wall);
    const Timing processor = timing_over_ranks(mesh_, cpu);
    const auto exposed = gather_one(mesh_, attention.stats(Pass::forward).exposed_s);
    if (mesh_.rank() != 0) return;
    point.forward = forward;
    point.cpu_s = processor.median_s;
    point.exposed_s = std::ranges::max(exposed);
  }

  const Settings& settings_;
  const Problem& problem_;
  AccountingRun& run_;
  Mesh& mesh_;
};

/// What the suite runs where nobody said otherwise: long enough that a rank is no overhead.
Settings with_defaults(Settings settings) {
  prefer(settings, "seq", "4096");
  prefer(settings, "heads", "8");
  prefer(settings, "head_dim", "128");
  prefer(settings, "world", "4");
  return settings;
}

void refuse_what_cannot_be(const Call& call) {
  const Settings& settings = call.settings;
  if (call.started.launched()) {
    settings.refuse("suite", fmt::format("starts its own ranks, as threads of one process: run it "
                                         "without {}",
                                         call.started.launcher));
  }
  if (settings.text("op") != "attention") settings.refuse("op", "does not fit suite accounting");
  const std::string& algorithm = settings.text("algorithm");
  if (algorithm == "hybrid") {
    settings.refuse("algorithm",
                    "is not allowed with suite accounting; allowed: auto, ring, "
                    "gather, ulysses");
  }
  const std::string& transport = settings.text("transport");
  if (transport != "auto" && transport != "local") {
    settings.refuse("transport", "is not allowed with suite accounting; allowed: auto, local");
  }
  if (settings.has("threads") && settings.integer("threads") != 1) {
    settings.refuse("threads", "is not allowed with suite accounting, where a rank is one thread");
  }
}

}  // namespace

int run_accounting_suite(const Call& call) {
  refuse_what_cannot_be(call);
  const Settings settings = with_defaults(call.settings);
  SuiteOutputs outputs(settings);
  const Problem problem = problem_of(settings);
  AccountingRun run;
  run.problem = problem;
  run.layout = layout_of(settings).name();
  run.command_line = call.command_line;
  run.calls = settings.integer("iterations");
  run.hardware_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  run.load_average = load_average();
  const auto most = static_cast<int>(settings.integer("world"));
  for (int sp = 1; sp <= most; sp *= 2) run.points.push_back({.sp = sp});
  const auto points = static_cast<std::int64_t>(run.points.size());
  Progress progress("accounting", points * (settings.integer("warmup") + run.calls), true);
  for (AccountingPoint& point : run.points) {
    const RanksRequest ranks{.started = call.started,
                             .shape = mesh_of(settings, point.sp),
                             .options = {.timeout_s = settings.real("timeout_s"), .log = {}},
                             .transport = "local"};
    run_ranks(ranks, [&](Mesh& mesh) {
      Progress* speaks = mesh.rank() == 0 ? &progress : nullptr;
      return AccountingRank(settings, problem, run, mesh).measure(point, speaks);
    });
  }
  return outputs.publish(report_of(run));
}

}  // namespace annulus::launch
