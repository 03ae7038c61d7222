#include "launch/request/problem.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {
namespace {

/// A choice of which only some words are built.
void allow(const Settings& settings, std::string_view key,
           std::initializer_list<std::string_view> built) {
  const std::string& word = settings.text(key);
  if (std::ranges::find(built, word) != built.end()) return;
  settings.refuse(key, fmt::format("is not built yet; built: {}", fmt::join(built, ", ")));
}

/// A key that has no effect yet.
void leave_out(const Settings& settings, std::string_view key) {
  if (settings.has(key)) {
    settings.refuse(key, fmt::format("is not allowed: {} is not built yet; leave it out", key));
  }
}

}  // namespace

void refuse_unbuilt(const Settings& settings) {
  // A report that was asked for must not be missing without a word.
  leave_out(settings, "html");
}

void refuse_unbuilt_run(const Settings& settings) {
  refuse_unbuilt(settings);
  if (!settings.has("suite")) leave_out(settings, "svg");
  allow(settings, "op", {"attention", "local", "moe", "layer"});
  layer_kinds_of(settings);  // a layer that nobody runs ends here
  allow(settings, "transport", {"auto", "local", "mpi", "peer", "nccl", "composite"});
}

void refuse_trace(const Settings& settings, std::string_view why) {
  if (!settings.has("trace")) return;
  settings.refuse("trace", fmt::format("is not allowed: {}; leave it out", why));
}

void refuse_typed_trace(const Settings& settings) {
  if (settings.source("trace") == "command line") {
    refuse_trace(settings, "only bench traces calls");
  }
}

void refuse_unbuilt_prediction(const Settings& settings) {
  refuse_unbuilt(settings);
  refuse_typed_trace(settings);
  leave_out(settings, "svg");
  layer_kinds_of(settings);
}

void refuse_fallback(const Settings& settings, const Problem& problem) {
  if (!settings.flag("strict")) return;
  const std::string backend = backend_of(settings);
  std::vector<KernelInfo> built = kernels_built();
  std::erase_if(built, [&](const KernelInfo& kernel) { return kernel.backend != backend; });
  const std::string& asked = settings.text("kernel");
  const std::string name = asked == "auto" ? built.front().name : asked;
  if (std::ranges::find(built, name, &KernelInfo::name) == built.end()) {
    std::vector<std::string> names;
    for (const KernelInfo& kernel : built) names.push_back(kernel.name);
    settings.refuse("kernel", fmt::format("is not built and strict forbids another; built: {}",
                                          fmt::join(names, ", ")));
  }
  const Pass pass = settings.text("pass") == "forward" ? Pass::forward : Pass::backward;
  const std::string why =
      kernel_refusal(name, {.backend = backend,
                            .dtype = problem.dtype,
                            .head_dim = problem.head_dim,
                            .head_dim_v = *problem.head_dim_v,
                            .pass = pass,
                            .softmax_scale = problem.softmax_scale.value_or(1.0)});
  if (why.empty()) return;
  settings.refuse("kernel", fmt::format("means {}, which cannot serve ({}), and strict forbids "
                                        "another",
                                        name, why));
}

}  // namespace annulus::launch
