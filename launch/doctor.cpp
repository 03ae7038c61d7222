#include "launch/bench/measure.h"
#include "launch/command.h"
#include "launch/doctor/findings.h"
#include "launch/doctor/gpu.h"
#include "launch/doctor/matrix.h"
#include "launch/doctor/self_test.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/output.h"
#include "launch/ranks_request.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

struct Diagnosis {
  Findings findings;
  GpuSurvey gpus;
  std::vector<MatrixRow> matrix;  ///< empty: nobody asked
  std::vector<Trial> trials;

  bool passed() const { return std::ranges::all_of(trials, &Trial::passed); }
  double seconds() const {
    double sum = 0;
    for (const Trial& trial : trials) sum += trial.seconds;
    return sum;
  }
};

std::string to_text(const Diagnosis& d) {
  std::string text = fmt::format("annulus {}, built by {}\n", ANNULUS_VERSION, __VERSION__);
  for (const Finding& line : d.findings.lines) {
    text += fmt::format("{:<11}{}\n", line.label, line.value);
  }
  text += gpu_text(d.gpus);
  if (!d.matrix.empty()) {
    text += fmt::format("\n{:<9} {:<10} {:<6} {:<14} {:<7} {}\n", "back end", "kernel", "dtype",
                        "head_dim", "mask", "pass");
    for (const MatrixRow& row : d.matrix) {
      text += fmt::format("{:<9} {:<10} {:<6} {:<14} {:<7} {}\n", row.backend, row.kernel,
                          row.dtype, row.head_dim, row.mask, row.pass);
    }
    text += "every mask compiles to key intervals by row, which every kernel takes\n";
  }
  text += d.findings.missing.empty() ? "" : "\nmissing\n";
  for (const Missing& missing : d.findings.missing) {
    text += fmt::format("  {}: {}\n", missing.what, missing.advice);
  }
  text += "\nself-test\n";
  for (const Trial& trial : d.trials) {
    text += fmt::format("  {:<6} {:<28} {} ({:.3f} s)\n", trial.passed ? "ok" : "FAILED",
                        trial.name, trial.result, trial.seconds);
  }
  return text + fmt::format("{} in {:.2f} s\n", d.passed() ? "all passed" : "FAILED", d.seconds());
}

std::string to_json(const Diagnosis& d) {
  ordered_json json{
      {"schema", "annulus.doctor/1"}, {"annulus", ANNULUS_VERSION}, {"compiler", __VERSION__}};
  for (const Finding& line : d.findings.lines) json["machine"][line.key] = line.value;
  json["gpu"] = ordered_json::parse(gpu_json(d.gpus));
  json["kernels"] = ordered_json::array();
  for (const KernelInfo& kernel : kernels_built()) {
    json["kernels"].push_back({{"name", kernel.name}, {"backend", kernel.backend}});
  }
  json["transports"] = transports_built();
  json["simd_targets"] = simd_targets();
  json["missing"] = ordered_json::array();
  for (const Missing& missing : d.findings.missing) {
    json["missing"].push_back({{"what", missing.what}, {"advice", missing.advice}});
  }
  if (!d.matrix.empty()) json["matrix"] = ordered_json::array();
  for (const MatrixRow& row : d.matrix) {
    json["matrix"].push_back({{"backend", row.backend},
                              {"kernel", row.kernel},
                              {"dtype", row.dtype},
                              {"head_dim", row.head_dim},
                              {"mask", row.mask},
                              {"pass", row.pass}});
  }
  json["self_test"] = {{"passed", d.passed()}, {"trials", ordered_json::array()}};
  for (const Trial& trial : d.trials) {
    json["self_test"]["trials"].push_back({{"name", trial.name},
                                           {"passed", trial.passed},
                                           {"result", trial.result},
                                           {"seconds", trial.seconds}});
  }
  return json.dump();
}

/// What one process sees; the same on every rank but for the host.
Diagnosis look(const Settings& settings) {
  Diagnosis diagnosis;
  find_cpu(diagnosis.findings);
  find_memory_and_limits(diagnosis.findings);
  find_mpi(diagnosis.findings);
  find_gpus(diagnosis.findings);
  find_counters(diagnosis.findings);
  diagnosis.gpus = survey_gpus();
  if (settings.flag("matrix")) diagnosis.matrix = kernel_matrix();
  diagnosis.trials = try_kernels();
  for (Trial& trial : try_local()) diagnosis.trials.push_back(std::move(trial));
  return diagnosis;
}

}  // namespace

int run_doctor(const Call& call) {
  const Settings& settings = call.settings;
  refuse_grid(settings, "doctor");
  OutputFile json(call.started.rank == 0 && settings.has("json") ? settings.path("json") : "",
                  settings.where("json"));
  const auto examine = [&](Mesh& mesh) {
    std::vector<Trial> trials;
    if (call.started.launched()) trials = try_mesh(mesh);
    int passed = std::ranges::all_of(trials, &Trial::passed) ? 1 : 0;
    if (mesh.rank() == 0) {
      Diagnosis diagnosis = look(settings);
      for (Trial& trial : trials) diagnosis.trials.push_back(std::move(trial));
      passed = diagnosis.passed() ? 1 : 0;
      if (!settings.flag("quiet")) {
        fmt::print(json.to_standard_output() ? stderr : stdout, "{}", to_text(diagnosis));
      }
      if (json.wanted()) json.commit(to_json(diagnosis) + "\n");
    }
    const std::vector<int> all = gather_one(mesh, passed);
    return std::ranges::count(all, 0) == 0 ? kPassed : kCheckFailed;
  };
  return run_ranks(ranks_request_of(settings, call.started), examine);
}

}  // namespace annulus::launch
