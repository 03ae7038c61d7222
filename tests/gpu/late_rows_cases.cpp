#include "tests/gpu/late_rows_cases.h"

#include <annulus/error.h>

#include "runtime/base/dtype.h"
#include "tests/gpu/second_gpu.h"

#include <cmath>
#include <cstddef>
#include <vector>

namespace annulus::testing {

namespace {

/// The first row of the second query segment.
std::int64_t cut_of(const Setting& s) { return s.launch.problem.seq / 2 + 3; }

TestLaunch with_rows_cut(const Setting& s) {
  TestLaunch launch = s.launch;
  const std::int64_t cut = cut_of(s);
  launch.queries = {{.row = 0, .token = 0, .count = cut},
                    {.row = cut, .token = cut, .count = launch.problem.seq - cut}};
  return launch;
}

/// A run whose backward has two query segments; its forward has been.
struct RowsRun {
  DeviceRun run;
  std::vector<double> lse, delta;

  RowsRun(const attn::Kernel& kernel, const Setting& s)
      : run(kernel, with_rows_cut(s), s.inputs, s.truth, Placing::compact, s.rounded) {
    load_code(run);
    run.poison_results();
    run.forward_pass();
    expect_end(run);
    lse = run.lse.get();
    delta = run.delta.get();
    run.backward.geometry.rows_arrive = true;
  }

  /// What the backward reads of the second segment is NaN, and its flag down.
  void hide(const Setting& s) {
    const auto put = [&](DeviceTensor& tensor, std::size_t count) {
      tensor.set(std::vector<double>(count, std::nan("")), run.other, cut_of(s));
    };
    put(run.q, s.inputs.q.size());
    put(run.dout, s.inputs.dout.size());
    put(run.lse, lse.size());
    put(run.delta, delta.size());
    run.set_row_flag(1, 0);
  }

  void show(const Setting& s) {
    run.q.set(s.inputs.q, run.other, cut_of(s));
    run.dout.set(s.inputs.dout, run.other, cut_of(s));
    run.lse.set(lse, run.other, cut_of(s));
    run.delta.set(delta, run.other, cut_of(s));
    run.set_row_flag(1, 1);
  }

  void expect_refused() {
    attn::ForwardParams forward = run.forward;
    forward.geometry.rows_arrive = true;
    bool refused = false;
    try {
      run.kernel().forward(forward, run.context);
    } catch (const InvalidArgument&) {
      refused = true;
    }
    expect(refused, "the forward took rows that are to arrive");
  }
};

}  // namespace

void late_rows(const attn::Kernel& kernel, const Setting& s) {
  RowsRun rows(kernel, s);
  rows.expect_refused();
  for (const bool deterministic : {false, true}) {
    rows.run.context.deterministic = deterministic;
    for (const DeviceTensor* result : {&rows.run.dq, &rows.run.dk, &rows.run.dv}) {
      result->poison(rows.run.other);
    }
    rows.hide(s);
    rows.run.backward_pass();
    sleep();
    expect(!rows.run.finished(), "it did not wait for the flag");
    rows.show(s);
    expect_end(rows.run);
    s.expect_right(rows.run);
  }
}

void rows_of_another_gpu(const attn::Kernel& kernel, const Setting& s) {
  RowsRun rows(kernel, s);
  DeviceRun& run = rows.run;
  const OracleProblem& p = s.launch.problem;
  SecondGpu gpu;
  const auto keep = [&](const DeviceTensor& tensor, std::int64_t dim, DType dtype) {
    const std::int64_t row = p.heads * dim * static_cast<std::int64_t>(size_of(dtype));
    gpu.keep(static_cast<std::byte*>(tensor.output().data) + cut_of(s) * row,
             static_cast<std::size_t>((p.seq - cut_of(s)) * row));
  };
  keep(run.q, p.head_dim, p.dtype);
  keep(run.dout, p.head_dim_v, p.dtype);
  keep(run.lse, 1, DType::f32);
  keep(run.delta, 1, DType::f32);
  // Once before: what the driver loads at its first use waits for the context.
  gpu.put_back(run.row_flag(1), 1);
  gpu.wait();
  rows.hide(s);
  run.backward_pass();
  sleep();
  expect(!run.finished(), "it did not wait for the flag");
  gpu.put_back(run.row_flag(1), 1);
  expect_end(run);
  s.expect_right(run);
}

void abort_of_rows(const attn::Kernel& kernel, const Setting& s) {
  std::uint32_t* word = nullptr;
  check_cuda(cudaHostAlloc(reinterpret_cast<void**>(&word), 4, cudaHostAllocMapped), "host word");
  {
    RowsRun rows(kernel, s);
    DeviceRun& run = rows.run;
    run.context.abort = word;
    for (std::size_t segment = 0; segment < 2; ++segment) {
      for (const bool deterministic : {false, true}) {
        run.context.deterministic = deterministic;
        *word = 0;
        run.set_row_flag(segment, 0);
        run.backward_pass();
        sleep();
        expect(!run.finished(), "it did not wait for the flag");
        *static_cast<volatile std::uint32_t*>(word) = 1;
        expect_end(run);
        run.set_row_flag(segment, 1);
      }
    }
    *word = 0;
    both_passes(run);  // nothing of it is left
    s.expect_right(run);
  }
  check_cuda(cudaFreeHost(word), "host word");
}

}  // namespace annulus::testing
