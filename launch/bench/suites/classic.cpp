#include "launch/bench/suites/classic.h"

#include "launch/bench/measure.h"
#include "launch/bench/place.h"
#include "launch/bench/tensors.h"
#include "launch/error.h"
#include "launch/progress.h"
#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <numeric>
#include <optional>

namespace annulus::launch {
namespace {

constexpr std::array<ClassicShape, 8> kShapes{{{1, 256, 64},
                                               {1, 512, 64},
                                               {2, 512, 64},
                                               {2, 1024, 64},
                                               {4, 1024, 64},
                                               {4, 2048, 64},
                                               {4, 2048, 128},
                                               {4, 4096, 128}}};
constexpr std::array<std::string_view, 3> kKernels{"naive", "flash1", "flash2"};

Problem classic_problem(const ClassicShape& shape) {
  return resolved({.batch = shape.batch,
                   .seq = shape.seq,
                   .seq_kv = {},
                   .heads = 1,
                   .heads_kv = {},
                   .head_dim = shape.dim,
                   .head_dim_v = {},
                   .dtype = DType::f32,
                   .mask = Mask::full(),
                   .softmax_scale = {}});
}

/// Calls that fill about a second at 20 GFLOP/s, from 5 to 100.
std::int64_t calls_for(const ClassicShape& shape) {
  const double flops = 4.0 * static_cast<double>(shape.batch * shape.seq * shape.seq * shape.dim);
  return std::clamp(static_cast<std::int64_t>(2e10 / flops), std::int64_t{5}, std::int64_t{100});
}

/// The inputs of one shape, the output, and float64 truth of some rows.
class ClassicCase {
 public:
  ClassicCase(const ClassicShape& shape, std::uint64_t seed, int device)
      : shape_(shape),
        generator_(seed, DType::f32),
        shards_(make_shards(classic_problem(shape), one_rank(shape), 0, generator_, false)) {
    // All rows of short sequences, evenly spread ones of long ones.
    const std::int64_t count = std::min<std::int64_t>(shape.seq, 256);
    for (std::int64_t i = 0; i < count; ++i) rows_.push_back(i * shape.seq / count);
    mask_ = compile_mask(classic_problem(shape));
    for (std::int64_t b = 0; b < shape.batch; ++b) add_truth(b);
    if (device >= 0) place_.emplace(device, shards_);
  }

  /// Seconds of one call.
  double run(LocalKernel& kernel) const {
    if (place_) return place_->timed(kernel);
    const auto start = std::chrono::steady_clock::now();
    kernel.forward(shards_.q.view(), shards_.k.view(), shards_.v.view(), shards_.out.view(),
                   shards_.lse.view());
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  /// The last call's output becomes the one that is compared.
  void fetch() const {
    if (place_) place_->download();
  }

  double rel_err() const {
    double worst = 0;
    double largest = 0;
    std::size_t i = 0;
    for (std::int64_t b = 0; b < shape_.batch; ++b) {
      for (const std::int64_t row : rows_) {
        for (std::int64_t d = 0; d < shape_.dim; ++d, ++i) {
          const double error = std::abs(shards_.out.at(b, row, 0, d) - truth_[i]);
          worst = std::isnan(error) ? INFINITY : std::max(worst, error);
          largest = std::max(largest, std::abs(truth_[i]));
        }
      }
    }
    return worst / largest;
  }

  std::int64_t rows_compared() const {
    return shape_.batch * static_cast<std::int64_t>(rows_.size());
  }

 private:
  static Sharding one_rank(const ClassicShape& shape) {
    return solve_layout(Layout::contiguous(), classic_problem(shape), 1);
  }

  void add_truth(std::int64_t batch) {
    const auto head = [&](Input input) {
      return generator_.head(input, batch, shape_.seq, 0, shape_.dim);
    };
    const std::vector<double> q = head(Input::q);
    const std::vector<double> k = head(Input::k);
    const std::vector<double> v = head(Input::v);
    const ReferenceHead reference{.seq = shape_.seq,
                                  .seq_kv = shape_.seq,
                                  .head_dim = shape_.dim,
                                  .head_dim_v = shape_.dim,
                                  .q = q.data(),
                                  .k = k.data(),
                                  .v = v.data(),
                                  .mask = &mask_,
                                  .softmax_scale = 1 / std::sqrt(static_cast<double>(shape_.dim))};
    const std::size_t begin = truth_.size();
    truth_.resize(begin + rows_.size() * static_cast<std::size_t>(shape_.dim));
    std::vector<double> lse(rows_.size());
    reference_forward(reference, rows_, truth_.data() + begin, lse.data());
  }

  ClassicShape shape_;
  Generator generator_;
  Shards shards_;
  std::optional<LocalPlace> place_;  ///< on a GPU
  std::vector<std::int64_t> rows_;
  KeyLists mask_;
  std::vector<double> truth_;
};

struct Plan {
  std::int64_t warmups = 10;
  std::int64_t calls = 0;  ///< 0: by the shape
  int threads = 1;
  std::string backend = "cpu";
};

ClassicRow measure(const ClassicShape& shape, const ClassicCase& one, std::string_view name,
                   const Plan& plan) {
  LocalKernel kernel(classic_problem(shape), {.kernel = std::string(name),
                                              .threads = plan.threads,
                                              .tile_q = 0,
                                              .tile_k = 0,
                                              .backend = plan.backend,
                                              .device = 0});
  ClassicRow row{.shape = shape,
                 .kernel = kernel.name(),
                 .warmups = plan.warmups,
                 .calls = plan.calls > 0 ? plan.calls : calls_for(shape)};
  std::vector<double> seconds;
  for (std::int64_t call = -row.warmups; call < row.calls; ++call) {
    const double took = one.run(kernel);
    if (call >= 0) seconds.push_back(took);
  }
  row.mean_s =
      std::accumulate(seconds.begin(), seconds.end(), 0.0) / static_cast<double>(seconds.size());
  row.median_s = timing_of(seconds).median_s;
  row.min_s = timing_of(seconds).min_s;
  row.counters = kernel.counters();
  one.fetch();
  row.rel_err = one.rel_err();
  row.rows_compared = one.rows_compared();
  return row;
}

/// Those of the classic three that are built.
std::vector<std::string_view> kernels_built(const std::string& backend) {
  std::vector<std::string_view> names;
  const std::vector<LocalKernelInfo> built =
      local_kernels(classic_problem(kShapes.front()), backend);
  for (const std::string_view name : kKernels) {
    const auto found = std::ranges::find(built, name, &LocalKernelInfo::name);
    if (found != built.end() && found->refusal.empty()) names.push_back(name);
  }
  return names;
}

}  // namespace

std::string ClassicShape::name() const { return fmt::format("{}x{}x{}", batch, seq, dim); }

int run_classic_suite(const Call& call) {
  const Settings& settings = call.settings;
  if (settings.text("op") != "local") settings.refuse("suite", "needs --op local");
  if (call.started.size > 1) {
    settings.refuse("suite", "compares kernels of one process: run it without mpirun");
  }
  SuiteOutputs outputs(settings);
  Plan plan{.threads = threads_of(settings, 1), .backend = backend_of(settings)};
  if (settings.given("warmup")) plan.warmups = settings.integer("warmup");
  if (settings.given("iterations")) plan.calls = settings.integer("iterations");
  ClassicRun run{.rows = {}, .threads = plan.threads, .command_line = call.command_line};
  run.device = plan.backend == "cuda" ? device_name(0) : processor_name();
  run.bound = 1e-5;
  run.load_average = load_average();
  const std::vector<std::string_view> kernels = kernels_built(plan.backend);
  Progress progress("classic", static_cast<std::int64_t>(kShapes.size() * kernels.size()), true);
  for (const ClassicShape& shape : kShapes) {
    const ClassicCase one(shape, static_cast<std::uint64_t>(settings.integer("seed")),
                          plan.backend == "cuda" ? 0 : -1);
    for (const std::string_view kernel : kernels) {
      run.rows.push_back(measure(shape, one, kernel, plan));
      progress.step(fmt::format("{} {}", shape.name(), kernel));
    }
  }
  return outputs.publish(report_of(run));
}

}  // namespace annulus::launch
