#include "launch/command.h"
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/output.h"
#include "launch/request/problem.h"
#include "launch/route/files.h"

#include <annulus/annulus.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

struct RouteReport {
  std::string router;
  moe::RouterConfig config;
  moe::Routing routing;
  moe::RouterStatus status;
  std::vector<std::int64_t> counts;
  std::int64_t dropped = 0;
};

void set_groups(const Settings& settings, moe::RouterConfig& config) {
  const bool own = settings.has("groups");
  if (own) {
    config.groups = settings.integer("groups");
    config.groups_kept = std::min(config.groups, config.groups_kept);
  }
  if (settings.has("groups_kept")) config.groups_kept = settings.integer("groups_kept");
  if (config.experts % config.groups != 0) {
    settings.refuse(own ? "groups" : "logits",
                    fmt::format("does not fit: {} experts are no multiple of {} groups{}",
                                config.experts, config.groups, own ? "" : "; give --groups"));
  }
  if (config.groups_kept > config.groups) {
    settings.refuse("groups_kept",
                    fmt::format("is not allowed; allowed: 1 to {}, the groups", config.groups));
  }
  config.group_top = std::min(config.group_top, config.experts / config.groups);
}

moe::RouterConfig router_of(const Settings& settings, std::int64_t experts) {
  const std::string& name = settings.text("router");
  const std::int64_t top_k = settings.maybe_integer("top_k").value_or(0);
  if (name == "switch" && top_k > 1) {
    settings.refuse("top_k", "is not allowed; allowed: 1, switch has one expert a token");
  }
  moe::RouterConfig config = moe::router_named(name, experts, top_k);
  set_groups(settings, config);
  if (settings.has("renormalize")) {
    config.renormalize = settings.text("renormalize") == "true";
    if (config.score == moe::Score::softmax_selected && !config.renormalize) {
      settings.refuse("renormalize", "cannot be with mixtral, whose softmax is over the selected");
    }
  }
  const std::int64_t most = experts / config.groups * config.groups_kept;
  if (config.k > most) {
    const bool own = settings.has("top_k");
    settings.refuse(own ? "top_k" : "logits",
                    fmt::format("does not fit: k {} of {} experts that a token may use{}", config.k,
                                most, own ? "" : "; give --top-k"));
  }
  if (settings.has("bias") && config.score != moe::Score::sigmoid) {
    settings.refuse("bias", fmt::format("cannot go with {}; allowed: --router deepseek_v3", name));
  }
  return config;
}

Matrix read_logits(const Settings& settings) {
  Matrix logits = read_matrix(settings, "logits", 2);
  if (logits.shape[1] < 1 || logits.shape[1] > std::int64_t{1} << 20) {
    settings.refuse("logits",
                    fmt::format("has {} experts; allowed: 1 to 1048576", logits.shape[1]));
  }
  return logits;
}

std::vector<float> read_bias(const Settings& settings, std::int64_t experts) {
  if (!settings.has("bias")) return {};
  Matrix bias = read_matrix(settings, "bias", 1);
  if (bias.shape[0] != experts) {
    settings.refuse("bias", fmt::format("has {} values; allowed: {}, one for each expert",
                                        bias.shape[0], experts));
  }
  return std::move(bias.values);
}

moe::Capacity capacity_of(const Settings& settings) {
  moe::Capacity capacity;
  if (settings.text("capacity_factor") != "off") capacity.factor = settings.real("capacity_factor");
  if (settings.text("drop_policy") == "position") capacity.policy = moe::DropPolicy::position;
  return capacity;
}

RouteReport route(const Settings& settings) {
  RouteReport report;
  report.router = settings.text("router");
  const Matrix logits = read_logits(settings);
  report.config = router_of(settings, logits.shape[1]);
  const std::vector<float> bias = read_bias(settings, logits.shape[1]);
  moe::Router router(report.config);
  router.forward({.logits = logits.values, .bias = bias, .padding = {}}, report.routing,
                 report.status);
  report.dropped = moe::apply_capacity(capacity_of(settings), report.routing, report.routing);
  moe::count_selections(report.routing, report.counts);
  return report;
}

template <typename T>
ordered_json rows_of(const std::vector<T>& values, std::int64_t tokens, std::int64_t k) {
  ordered_json rows = ordered_json::array();
  for (std::int64_t t = 0; t < tokens; ++t) {
    rows.push_back(std::vector<T>(values.begin() + t * k, values.begin() + (t + 1) * k));
  }
  return rows;
}

std::string to_json(const RouteReport& r) {
  const moe::LoadStatistics load = moe::load_of(r.counts);
  const moe::Routing& routing = r.routing;
  const ordered_json json{{"schema", "annulus.route/1"},
                          {"router", r.router},
                          {"tokens", routing.tokens},
                          {"experts", routing.experts},
                          {"top_k", routing.k},
                          {"groups", r.config.groups},
                          {"groups_kept", r.config.groups_kept},
                          {"renormalize", r.config.renormalize},
                          {"scale", r.config.scale},
                          {"indices", rows_of(routing.indices, routing.tokens, routing.k)},
                          {"weights", rows_of(routing.weights, routing.tokens, routing.k)},
                          {"counts", r.counts},
                          {"bad_tokens", r.status.bad_tokens},
                          {"dropped", r.dropped},
                          {"max_over_mean", load.max_over_mean},
                          {"unused_experts", load.unused}};
  return json.dump();
}

std::string to_text(const RouteReport& r) {
  const moe::LoadStatistics load = moe::load_of(r.counts);
  std::string text = fmt::format(
      "route      {}: {} tokens, {} of {} experts each, groups {} of {}\n"
      "load       {} pairs, at most {} at one expert ({:.4f} of the mean), {} experts unused, {} "
      "pairs dropped\n",
      r.router, r.routing.tokens, r.routing.k, r.routing.experts, r.config.groups_kept,
      r.config.groups, load.selections, load.most, load.max_over_mean, load.unused, r.dropped);
  if (r.status.bad_tokens > 0) {
    text +=
        fmt::format("WARNING    {} tokens have logits that are no numbers: their weights are 0\n",
                    r.status.bad_tokens);
  }
  return text;
}

void check_output(const Settings& settings, const char* key) {
  if (!settings.has(key)) return;
  if (settings.path(key).extension() != ".npy") {
    settings.refuse(key, "is not allowed; allowed: FILE.npy");
  }
  for (const char* input : {"logits", "bias"}) {
    std::error_code missing;
    if (!settings.has(input)) continue;
    if (!std::filesystem::equivalent(settings.path(input), settings.path(key), missing)) continue;
    settings.refuse(key, fmt::format("is also the input {}; allowed: another file", input));
  }
}

}  // namespace

int run_route(const Call& call) {
  const Settings& settings = call.settings;
  refuse_grid(settings, "route");
  refuse_unbuilt(settings);
  refuse_typed_trace(settings);
  for (const char* key : {"router", "logits"}) settings.text(key);
  for (const char* key : {"indices", "weights"}) check_output(settings, key);
  if (settings.has("indices") && settings.has("weights") &&
      settings.path("indices") == settings.path("weights")) {
    settings.refuse("weights", "is also the file of indices; allowed: another file");
  }
  const bool speaks = call.started.rank == 0;  // every rank finds what is wrong, one writes
  const auto output = [&](const char* key) {
    return OutputFile(speaks && settings.has(key) ? settings.path(key) : "", settings.where(key));
  };
  OutputFile json = output("json");
  OutputFile indices = output("indices");
  OutputFile weights = output("weights");
  const RouteReport report = route(settings);
  if (!speaks) return kPassed;
  if (!settings.flag("quiet")) {
    fmt::print(json.to_standard_output() ? stderr : stdout, "{}", to_text(report));
  }
  const moe::Routing& r = report.routing;
  if (indices.wanted()) indices.commit(npy_of(r.indices, r.tokens, r.k));
  if (weights.wanted()) weights.commit(npy_of(r.weights, r.tokens, r.k));
  if (json.wanted()) json.commit(to_json(report) + "\n");
  return kPassed;
}

}  // namespace annulus::launch
