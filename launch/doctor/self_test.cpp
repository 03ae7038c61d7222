#include "launch/doctor/self_test.h"

#include "launch/bench/check.h"
#include "launch/bench/measure.h"
#include "launch/bench/place.h"
#include "launch/bench/tensors.h"

#include <annulus/annulus.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <thread>

namespace annulus::launch {
namespace {

constexpr std::int64_t kHeadDim = 64;  // which the kernels of tensor cores serve
constexpr std::int64_t kBytes = std::int64_t{16} << 20;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Runs `work`, which says what it saw and whether that is right.
template <typename Work>
Trial try_out(std::string name, Work work) {
  Trial trial{.name = std::move(name), .result = {}, .passed = false, .seconds = 0};
  const auto start = std::chrono::steady_clock::now();
  try {
    work(trial);
  } catch (const std::exception& error) {
    trial.passed = false;
    trial.result = error.what();
  }
  trial.seconds = seconds_since(start);
  return trial;
}

Problem small_problem(DType dtype) {
  return {.batch = 1,
          .seq = 97,
          .heads = 4,
          .heads_kv = 2,
          .head_dim = kHeadDim,
          .dtype = dtype,
          .mask = Mask::causal()};
}

/// Forward and backward on `mesh`, every element checked. Collective.
void run_attention(Mesh& mesh, DType dtype, const KernelInfo& kernel, Trial& trial) {
  const Problem problem = resolved(small_problem(dtype));
  Session session(
      mesh,
      {.max_problem = problem, .kernel = kernel.name, .arena = {}, .backend = kernel.backend});
  Attention attention(session, problem, {.kernel = kernel.name});
  const Generator generator(1, dtype);
  const Shards s = make_shards(problem, attention.layout(), mesh.rank(), generator, true);
  const Place place(mesh, session, s);
  place.forward(attention);
  place.backward(attention);
  place.download(attention);
  const CheckReport report =
      check(mesh, {.problem = problem, .seed = 1, .backward = true, .sampled = false},
            attention.layout(), s);
  double worst = 0;
  for (const CheckLine& line : report.lines) {
    worst = std::isnan(line.rel_err) ? INFINITY : std::max(worst, line.rel_err);
  }
  trial.passed = report.passed();
  trial.result = fmt::format("out, lse, dq, dk, dv within {:.1e} of float64", worst);
}

/// Rank 0 to rank 1; the rate as rank 1 sees it, on every rank. Collective.
void run_transfer(Mesh& mesh, Trial& trial) {
  std::vector<std::byte> data(static_cast<std::size_t>(kBytes));
  for (std::size_t i = 0; i < data.size() && mesh.rank() == 0; ++i)
    data[i] = std::byte(i * 7 % 251);
  double seconds = 0;
  for (int round = 0; round < 2; ++round) {  // the first warms up
    barrier(mesh, "doctor: before a transfer");
    const auto start = std::chrono::steady_clock::now();
    if (mesh.rank() == 0) send(mesh, 1, data, "doctor");
    if (mesh.rank() == 1) receive(mesh, 0, data, "doctor");
    seconds = seconds_since(start);
  }
  int right = 1;
  for (std::size_t i = 0; i < data.size() && mesh.rank() == 1; ++i) {
    right &= data[i] == std::byte(i * 7 % 251) ? 1 : 0;
  }
  trial.passed = gather_one(mesh, right)[1] == 1;
  const double slow = gather_one(mesh, seconds)[1];
  trial.result =
      fmt::format("16 MiB from rank 0 to rank 1: {} at {:.1f} GB/s",
                  trial.passed ? "right" : "WRONG", static_cast<double>(kBytes) / slow * 1e-9);
}

}  // namespace

std::vector<Trial> try_kernels() {
  std::vector<Trial> trials;
  for (const KernelInfo& kernel : kernels_built()) {
    if (kernel.backend == "cuda" && device_count() == 0) continue;  // doctor says so elsewhere
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      const KernelAsk ask{.backend = kernel.backend,
                          .dtype = dtype,
                          .head_dim = kHeadDim,
                          .head_dim_v = kHeadDim,
                          .pass = Pass::backward};
      if (!kernel_refusal(kernel.name, ask).empty()) continue;
      trials.push_back(try_out(fmt::format("{} {} {}", kernel.backend, kernel.name, name_of(dtype)),
                               [&](Trial& trial) {
                                 Mesh mesh = Mesh::single();
                                 run_attention(mesh, dtype, kernel, trial);
                               }));
    }
  }
  return trials;
}

std::vector<Trial> try_mesh(Mesh& mesh) {
  const std::string name = fmt::format("{}, {} ranks", mesh.transport(), mesh.world());
  std::vector<Trial> trials;
  if (mesh.world() > 1) {
    trials.push_back(try_out(name + ": transfer", [&](Trial& t) { run_transfer(mesh, t); }));
  }
  trials.push_back(try_out(name + ": attention", [&](Trial& t) {
    run_attention(mesh, DType::f32, {.name = "auto", .backend = "cpu"}, t);
  }));
  return trials;
}

std::vector<Trial> try_local() {
  std::vector<Mesh> meshes = Mesh::threads({.ring = 2});
  std::vector<Trial> trials;
  {
    std::jthread other([&] { try_mesh(meshes[1]); });
    trials = try_mesh(meshes[0]);
  }
  return trials;
}

}  // namespace annulus::launch
