#include "tests/gpu/contract_cases.h"

#include "attention/kernels/cuda/table.h"
#include "tests/gpu/contract_setting.h"
#include "tests/gpu/late_rows_cases.h"
#include "tests/gpu/second_gpu.h"
#include "tests/gpu/shares.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <memory>
#include <string_view>

namespace annulus::testing {

namespace {

using attn::Kernel;
using attn::KeySegment;

OracleProblem contract_problem(std::int64_t dim, std::int64_t dim_v, std::int64_t seq) {
  return {.seq = seq,
          .seq_kv = seq,
          .heads = 6,
          .heads_kv = 3,
          .head_dim = dim,
          .head_dim_v = dim_v,
          .dtype = DType::bf16,
          .terms = {Mask::Causal{}},
          .softmax_scale = 1.0 / std::sqrt(static_cast<double>(dim))};
}

void placed(const Kernel& kernel, const Setting& s, Placing placing) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, placing, s.rounded);
  both_passes(run);
  s.expect_right(run);
}

/// Keys and flag of the second segment come while the kernel waits for them.
void late_flag(const Kernel& kernel, const Setting& s) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
  load_code(run);
  run.poison_results();
  const auto late = [&](const auto& pass) {
    run.k.poison(run.other);
    run.v.poison(run.other);
    run.set_flag(1, 0);
    run.k.set(s.inputs.k, run.other);  // the first segment, and NaN behind it
    run.v.set(s.inputs.v, run.other);
    std::vector<double> nan(s.inputs.k.size(), std::nan(""));
    run.k.set(nan, run.other, s.cut);
    run.v.set(nan, run.other, s.cut);
    pass();
    sleep();
    expect(!run.finished(), "it did not wait for the flag");
    run.k.set(s.inputs.k, run.other, s.cut);
    run.v.set(s.inputs.v, run.other, s.cut);
    run.set_flag(1, 1);
    expect_end(run);
  };
  late([&] { run.forward_pass(); });
  late([&] { run.backward_pass(); });
  s.expect_right(run);
}

/// The same from GPU 1: its engines copy the keys, its stream writes the flag.
void flag_of_another_gpu(const Kernel& kernel, const Setting& s) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
  load_code(run);
  run.poison_results();
  const OracleProblem& p = s.launch.problem;
  SecondGpu gpu;
  const auto keep = [&](const DeviceTensor& tensor, std::int64_t dim) {
    const std::int64_t row = p.heads_kv * dim * static_cast<std::int64_t>(size_of(p.dtype));
    gpu.keep(static_cast<std::byte*>(tensor.output().data) + s.cut * row,
             static_cast<std::size_t>((p.seq_kv - s.cut) * row));
  };
  keep(run.k, p.head_dim);
  keep(run.v, p.head_dim_v);
  // Once before: what the driver loads at its first use waits for the context.
  gpu.put_back(run.flag(1), 1);
  gpu.wait();
  const auto late = [&](const auto& pass) {
    const std::vector<double> nan(std::max(s.inputs.k.size(), s.inputs.v.size()), std::nan(""));
    run.k.set(nan, run.other, s.cut);
    run.v.set(nan, run.other, s.cut);
    run.set_flag(1, 0);
    pass();
    sleep();
    expect(!run.finished(), "it did not wait for the flag");
    gpu.put_back(run.flag(1), 1);
    expect_end(run);
  };
  late([&] { run.forward_pass(); });
  late([&] { run.backward_pass(); });
  s.expect_right(run);
}

/// A word in host memory ends waits for flags, and for turns that depend on them.
void abort_ends(const Kernel& kernel, const Setting& s) {
  std::uint32_t* word = nullptr;
  check_cuda(cudaHostAlloc(reinterpret_cast<void**>(&word), 4, cudaHostAllocMapped), "host word");
  {
    DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
    run.context.abort = word;
    *word = 0;
    load_code(run);
    const auto aborted = [&](std::size_t segment, const auto& pass) {
      *word = 0;
      run.set_flag(segment, 0);
      pass();
      sleep();
      expect(!run.finished(), "it did not wait for the flag");
      *static_cast<volatile std::uint32_t*>(word) = 1;
      expect_end(run);
      run.set_flag(segment, 1);
    };
    for (std::size_t segment = 0; segment < 2; ++segment) {
      aborted(segment, [&] { run.forward_pass(); });
      for (const bool deterministic : {false, true}) {
        run.context.deterministic = deterministic;
        aborted(segment, [&] { run.backward_pass(); });
      }
    }
    *word = 0;
    both_passes(run);  // nothing of it is left
    s.expect_right(run);
  }
  check_cuda(cudaFreeHost(word), "host word");
}

/// Replays of what `enqueue` enqueues leave the same `results` as an eager call did.
void expect_replays(DeviceRun& run, const std::function<void()>& enqueue,
                    const std::function<OracleResult()>& results) {
  enqueue();
  const OracleResult eager = results();
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t instance = nullptr;
  check_cuda(cudaStreamBeginCapture(run.stream, cudaStreamCaptureModeThreadLocal), "capture");
  enqueue();
  check_cuda(cudaStreamEndCapture(run.stream, &graph), "capture");
  check_cuda(cudaGraphInstantiate(&instance, graph, 0), "instantiate");
  for (int i = 0; i < 3; ++i) {
    run.poison_results();
    check_cuda(cudaGraphLaunch(instance, run.stream), "replay");
    expect(same_bits(results(), eager), "a replay has other bits");
  }
  check_cuda(cudaGraphExecDestroy(instance), "graph");
  check_cuda(cudaGraphDestroy(graph), "graph");
}

void captured(const Kernel& kernel, const Setting& s) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
  run.context.deterministic = true;
  run.poison_results();
  const auto both = [&] {
    run.forward_pass();
    run.backward_pass();
  };
  expect_replays(run, both, [&] { return run.results(); });
}

/// Forward alone, free to be split over keys: not deterministic.
void captured_free(const Kernel& kernel, const Setting& s) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
  const auto forward_alone = [&] {
    OracleResult r = run.results();
    for (auto* gradient : {&r.dq, &r.dk, &r.dv}) gradient->clear();
    return r;
  };
  expect_replays(
      run, [&] { run.forward_pass(); }, forward_alone);
  run.backward_pass();
  s.expect_right(run);
}

/// Heads 0 and 1 .. 5 in launches of their own: the second begins within a group.
void head_offset(const Kernel& kernel, const Setting& s) {
  DeviceRun run(kernel, s.launch, s.inputs, s.truth, Placing::compact, s.rounded);
  run.poison_results();
  const std::vector<double> zeroes(s.inputs.k.size(), 0.0);
  run.dk.set(zeroes, run.other);
  run.dv.set(zeroes, run.other);
  run.backward.dkv_assign = false;
  const attn::ForwardParams forward = run.forward;
  const attn::BackwardParams backward = run.backward;
  const auto from_head = [](auto operand, std::int64_t head) {
    using Pointer = decltype(operand.data);
    const auto address =
        reinterpret_cast<std::uintptr_t>(operand.data) +
        static_cast<std::uintptr_t>(head * operand.head_stride *
                                    static_cast<std::int64_t>(size_of(operand.dtype)));
    operand.data = reinterpret_cast<Pointer>(address);
    return operand;
  };
  for (const std::int64_t first : {0, 1}) {
    run.forward = forward;
    run.backward = backward;
    for (attn::AttendGeometry* g : {&run.forward.geometry, &run.backward.geometry}) {
      g->head_offset = first;
      g->heads = first == 0 ? 1 : 5;
    }
    run.forward.q = from_head(forward.q, first);
    run.forward.out = from_head(forward.out, first);
    run.forward.lse = from_head(forward.lse, first);
    run.backward.q = run.forward.q;
    run.backward.dout = from_head(backward.dout, first);
    run.backward.lse = from_head(backward.lse, first);
    run.backward.delta = from_head(backward.delta, first);
    run.backward.dq = from_head(backward.dq, first);
    run.forward_pass();
    run.backward_pass();
  }
  s.expect_right(run);
}

/// A NaN of one query shows in its row and head, and nowhere else.
void shows_nan(const Kernel& kernel, const Setting& s) {
  OracleInputs inputs = s.inputs;
  inputs.q[0] = std::nan("");
  DeviceRun run(kernel, s.launch, inputs, s.truth);
  run.poison_results();
  run.forward_pass();
  const std::vector<double> out = run.results().out;
  const auto row = out.begin() + s.launch.problem.head_dim_v;
  const auto is_nan = [](double x) { return std::isnan(x); };
  expect(std::all_of(out.begin(), row, is_nan), "the row of a NaN query is not NaN");
  expect(std::none_of(row, out.end(), is_nan), "another row is NaN");
}

}  // namespace

void contract_cases(const std::string& only, Tally& tally) {
  // `few`: flash2, flash1 and hopper alone, with few rows. Beside a grid of naive that waits on
  // every SM the copies of a late flag do not start.
  const auto run_problem = [&](const std::string& name, const OracleProblem& problem_here, bool few,
                               bool hopper, const auto& body, bool rounded = false) {
    std::unique_ptr<Setting> made;
    for (const Kernel* kernel : attn::cuda::kernels()) {
      if (few && kernel->name != "flash2" && kernel->name != "flash1" && kernel->name != "hopper") {
        continue;
      }
      if (hopper && kernel->name != "hopper") continue;
      if ((std::string(kernel->name) + " " + name).find(only) == std::string::npos) continue;
      const OracleProblem& p = problem_here;
      if (!kernel->refuses({p.dtype, p.head_dim, p.head_dim_v, false, "cuda"}).empty()) continue;
      // Tiles that all kernels take, and both passes of `hopper`.
      const std::int64_t keys =
          hopper ? attn::tiles_for(*kernel, {p.dtype, p.head_dim, p.head_dim_v, true, "cuda"}).keys
                 : 128;
      if (!made) made = std::make_unique<Setting>(problem_here, TileGrid{128, keys}, rounded);
      const Setting& setting = *made;
      ++tally.cases;
      std::string problem;
      try {
        body(*kernel, setting);
      } catch (const std::exception& error) {
        problem = error.what();
      }
      std::printf("%-4s %-9s %s%s%s\n", problem.empty() ? "ok" : "FAIL", kernel->name.data(),
                  name.c_str(), problem.empty() ? "" : ": ", problem.c_str());
      std::fflush(stdout);
      tally.failed += problem.empty() ? 0 : 1;
    }
  };
  const auto run_dims = [&](const std::string& name, std::int64_t dim, std::int64_t dim_v, bool few,
                            bool hopper, const auto& body, bool rounded = false) {
    run_problem(name, contract_problem(dim, dim_v, few ? 150 : 400), few, hopper, body, rounded);
  };
  const auto run = [&](const char* what, std::int64_t dim, bool few, const auto& body) {
    run_dims(std::string(what) + " dim " + std::to_string(dim), dim, dim, few, false, body);
  };
  const bool second = SecondGpu::there();
  if (!second) std::printf("skip flag of another GPU: no second one that reaches the first\n");
  for (const std::int64_t dim : {128, 64}) {
    run("heads outermost", dim, false,
        [](const Kernel& kernel, const Setting& s) { placed(kernel, s, Placing::head_major); });
    run("more than 2^31 elements", dim, true,
        [](const Kernel& kernel, const Setting& s) { placed(kernel, s, Placing::far); });
    run("head offset", dim, false, head_offset);
    run("late flag", dim, true, late_flag);
    run("late flag of rows", dim, true, late_rows);
    if (second) {
      run("flag of another GPU", dim, true, flag_of_another_gpu);
      run("flag of another GPU, of rows", dim, true, rows_of_another_gpu);
    }
    run("abort", dim, false, abort_ends);
    run("abort of rows", dim, false, abort_of_rows);
    run("graph", dim, false, captured);
    run("NaN query", dim, false, shows_nan);
  }
  // Head dims of `hopper` alone: names as dims_cases.h has them.
  for (const auto& [dim, dim_v] : {std::pair{96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    const auto run_hopper = [&, k = dim, v = dim_v](const char* what, bool few, const auto& body) {
      run_dims(std::string("dims ") + what + " dim " + std::to_string(k) + ":" + std::to_string(v),
               k, v, few, true, body);
    };
    run_hopper("heads outermost", false, [](const Kernel& kernel, const Setting& s) {
      placed(kernel, s, Placing::head_major);
    });
    run_hopper("late flag", true, late_flag);
    run_hopper("late flag of rows", true, late_rows);
    run_hopper("abort", false, abort_ends);
    run_hopper("abort of rows", false, abort_of_rows);
    run_hopper("graph", false, captured);
  }
  // dK and dV in the dtype of the inputs: names begin with "rounded".
  for (const auto& [dim, dim_v] :
       {std::pair{128, 128}, {64, 64}, {96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    const auto run_rounded = [&, k = dim, v = dim_v](const char* what, bool few, const auto& body) {
      run_dims(
          std::string("rounded ") + what + " dim " + std::to_string(k) + ":" + std::to_string(v), k,
          v, few, true, body, true);
    };
    run_rounded("heads outermost", false, [](const Kernel& kernel, const Setting& s) {
      placed(kernel, s, Placing::head_major);
    });
    run_rounded("late flag", true, late_flag);
    run_rounded("late flag of rows", true, late_rows);
    run_rounded("abort", false, abort_ends);
    run_rounded("graph", false, captured);
  }
  // Few rows and many keys: split over keys, with heads packed or not.
  for (const std::int64_t heads : {3, 48}) {
    OracleProblem p = contract_problem(128, 128, 3);
    p.seq_kv = 3001;
    p.heads = heads;
    p.terms.clear();
    const std::string end = " dim 128 heads " + std::to_string(heads) + ":3";
    run_problem("split late flag" + end, p, true, true, late_flag);
    run_problem("split abort" + end, p, false, true, abort_ends);
    run_problem("split graph" + end, p, false, true, captured_free);
  }
}

}  // namespace annulus::testing
