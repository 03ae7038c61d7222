#include "launch/doctor/gpu.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace annulus::launch {
namespace {

using nlohmann::ordered_json;

std::string line(const char* label, const std::string& value) {
  return fmt::format("{:<11}{}\n", label, value);
}

std::string devices_text(const GpuSurvey& s) {
  std::string text;
  for (const GpuInfo& gpu : s.gpus) {
    text += line(
        "GPU", fmt::format("{}: {}, {:.1f} GiB, {} SMs, capability {}, {} copy engines, {}",
                           gpu.ordinal, gpu.name, static_cast<double>(gpu.memory_bytes) / (1 << 30),
                           gpu.sms, gpu.capability, gpu.copy_engines, gpu.bus_id));
  }
  return text + line("", fmt::format("driver {}; built with CUDA {}", s.driver, s.runtime));
}

std::string peers_text(const GpuSurvey& s) {
  std::string text;
  for (std::size_t of = 0; of < s.peer_access.size() && s.gpus.size() > 1; ++of) {
    std::string row;
    for (const bool can : s.peer_access[of]) row += can ? " yes" : "  no";
    text += line(of == 0 ? "peers" : "",
                 fmt::format("GPU {} addresses memory of 0, 1, ...:{}", of, row));
  }
  return text;
}

std::string rates(const GpuLink& link, double LinkRate::*rate) {
  std::vector<std::string> cells;
  for (const LinkRate& r : link.rates) {
    cells.push_back(fmt::format("{} MiB {:.0f}", r.bytes >> 20, r.*rate));
  }
  return fmt::format("{}", fmt::join(cells, ", "));
}

std::string links_text(const GpuSurvey& s) {
  if (!s.links_unavailable.empty()) return line("links", s.links_unavailable);
  std::string text;
  for (const GpuLink& link : s.links) {
    text += line(text.empty() ? "links" : "",
                 fmt::format("GPU {} from {}, GB/s: pull {}; push {}", link.to, link.from,
                             rates(link, &LinkRate::pull_gb_s), rates(link, &LinkRate::push_gb_s)));
  }
  if (s.links.empty()) return text;
  const GpuLink& first = s.links.front();
  if (!s.nccl_unavailable.empty()) {
    text += line("", "NCCL unavailable: " + s.nccl_unavailable);
  } else if (first.rates.front().nccl_gb_s > 0) {
    text += line("", fmt::format("GPU {} from {} through NCCL, GB/s: {}", first.to, first.from,
                                 rates(first, &LinkRate::nccl_gb_s)));
  }
  return text;
}

std::string copies_text(const GpuSurvey& s) {
  if (s.copy_model.bytes_a_second <= 0) return {};
  return line("copies", fmt::format("{}: {:.1f} us a queued copy + bytes / {:.0f} GB/s ({} sizes, "
                                    "worst error {:.0f} %)",
                                    s.copies_of, s.copy_model.seconds_a_copy * 1e6,
                                    s.copy_model.bytes_a_second * 1e-9, s.copy_samples.size(),
                                    s.copy_model.worst_error * 100));
}

std::string beside_text(const GpuSurvey& s) {
  if (s.beside.empty()) return {};
  std::vector<std::string> start;
  std::vector<std::string> wait;
  std::vector<std::string> untried;
  for (const BesideFullKernel& b : s.beside) {
    (!b.untried.empty() ? untried : b.starts ? start : wait).push_back(b.operation);
  }
  const auto list = [](const std::vector<std::string>& names) {
    return names.empty() ? std::string("nothing") : fmt::format("{}", fmt::join(names, ", "));
  };
  std::string text =
      fmt::format("a kernel on every SM: {} start; {} wait", list(start), list(wait));
  if (!untried.empty()) text += fmt::format("; not tried: {}", list(untried));
  return line("beside", text);
}

std::string queues_text(const GpuSurvey& s) {
  if (s.queues.max_connections.empty()) return {};
  return line("queues",
              fmt::format("CUDA_DEVICE_MAX_CONNECTIONS {}; {} waiting streams {}",
                          s.queues.max_connections, s.queues.waiting_streams,
                          s.queues.limited ? "hold up a kernel of the next" : "hold up nothing"));
}

std::string counters_text(const GpuSurvey& s) {
  return line("counters", s.counters_unavailable.empty()
                              ? fmt::format("GPU: {}", s.counters)
                              : fmt::format("GPU: unavailable: {}", s.counters_unavailable));
}

ordered_json devices_json(const GpuSurvey& s) {
  ordered_json json = ordered_json::array();
  for (const GpuInfo& gpu : s.gpus) {
    json.push_back({{"ordinal", gpu.ordinal},
                    {"name", gpu.name},
                    {"capability", gpu.capability},
                    {"bus_id", gpu.bus_id},
                    {"memory_bytes", gpu.memory_bytes},
                    {"sms", gpu.sms},
                    {"copy_engines", gpu.copy_engines}});
  }
  return json;
}

ordered_json links_json(const GpuSurvey& s) {
  if (!s.links_unavailable.empty()) return {{"unavailable", s.links_unavailable}};
  ordered_json json = ordered_json::array();
  for (const GpuLink& link : s.links) {
    for (const LinkRate& rate : link.rates) {
      json.push_back({{"to", link.to},
                      {"from", link.from},
                      {"bytes", rate.bytes},
                      {"pull_gb_s", rate.pull_gb_s},
                      {"push_gb_s", rate.push_gb_s},
                      {"nccl_gb_s",
                       rate.nccl_gb_s > 0 ? ordered_json(rate.nccl_gb_s) : ordered_json(nullptr)}});
    }
  }
  return json;
}

ordered_json copies_json(const GpuSurvey& s) {
  if (s.copy_model.bytes_a_second <= 0) return nullptr;
  ordered_json samples = ordered_json::array();
  for (const CopySample& sample : s.copy_samples) {
    samples.push_back(
        {{"bytes", sample.bytes}, {"copies", sample.copies}, {"seconds", sample.seconds}});
  }
  return {{"of", s.copies_of},
          {"seconds_a_copy", s.copy_model.seconds_a_copy},
          {"bytes_a_second", s.copy_model.bytes_a_second},
          {"worst_error", s.copy_model.worst_error},
          {"samples", samples}};
}

ordered_json beside_json(const GpuSurvey& s) {
  ordered_json json = ordered_json::object();
  for (const BesideFullKernel& b : s.beside) {
    json[b.operation] =
        b.untried.empty() ? ordered_json(b.starts) : ordered_json{{"untried", b.untried}};
  }
  return json;
}

ordered_json queues_json(const GpuSurvey& s) {
  if (s.queues.max_connections.empty()) return nullptr;
  return {{"max_connections", s.queues.max_connections},
          {"waiting_streams", s.queues.waiting_streams},
          {"limited", s.queues.limited}};
}

}  // namespace

std::string gpu_text(const GpuSurvey& s) {
  if (!s.unavailable.empty()) return line("GPU", "no GPU: " + s.unavailable);
  std::string text = devices_text(s) + peers_text(s) + links_text(s) + copies_text(s) +
                     beside_text(s) + queues_text(s) + counters_text(s);
  for (const std::string& problem : s.problems) text += line("problem", problem);
  return text;
}

std::string gpu_json(const GpuSurvey& s) {
  if (!s.unavailable.empty()) return ordered_json{{"unavailable", s.unavailable}}.dump();
  const ordered_json json{{"driver", s.driver},
                          {"runtime", s.runtime},
                          {"devices", devices_json(s)},
                          {"peer_access", s.peer_access},
                          {"links", links_json(s)},
                          {"copy_model", copies_json(s)},
                          {"starts_beside_full_kernel", beside_json(s)},
                          {"queues", queues_json(s)},
                          {"counters", s.counters_unavailable.empty()
                                           ? ordered_json(s.counters)
                                           : ordered_json{{"unavailable", s.counters_unavailable}}},
                          {"problems", s.problems}};
  return json.dump();
}

}  // namespace annulus::launch
