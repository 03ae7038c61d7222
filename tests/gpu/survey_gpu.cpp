// What `annulus doctor` finds on a machine with GPUs, against what must hold on any:
//   survey_gpu        prints the survey; exit status 1 where it contradicts itself, 77 without a
//   GPU
#include "launch/doctor/gpu.h"

#include <annulus/gpu.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace {

int g_failed = 0;

void check(bool holds, const std::string& what) {
  g_failed += holds ? 0 : 1;
  std::printf("%-4s %s\n", holds ? "ok" : "FAIL", what.c_str());
}

bool tried(const annulus::GpuSurvey& s, const std::string& operation) {
  return std::ranges::any_of(s.beside, [&](const annulus::BesideFullKernel& b) {
    return b.operation == operation && b.untried.empty();
  });
}

bool starts(const annulus::GpuSurvey& s, const std::string& operation) {
  return std::ranges::any_of(s.beside, [&](const annulus::BesideFullKernel& b) {
    return b.operation == operation && b.starts;
  });
}

void check_links(const annulus::GpuSurvey& s) {
  if (s.gpus.size() == 1) {
    check(s.links_unavailable == "one GPU: no links" && s.links.empty(), "one GPU has no links");
    check(!tried(s, "peer copy"), "nobody tried a peer copy");
    return;
  }
  for (const annulus::GpuLink& link : s.links) {
    const auto& rates = link.rates;
    check(rates.size() == 4 && rates[0].bytes == 1 << 20 && rates[3].bytes == 64 << 20,
          "rates of 1 to 64 MiB");
    const bool grow =
        rates[3].pull_gb_s > rates[0].pull_gb_s && rates[3].push_gb_s > rates[0].push_gb_s;
    check(grow && rates[0].pull_gb_s > 1, "large copies are faster than small ones");
  }
  if (!s.links.empty()) check(tried(s, "peer copy"), "a peer copy was tried");
}

}  // namespace

int main() {
  const annulus::GpuSurvey s = annulus::survey_gpus();
  std::printf("%s", annulus::launch::gpu_text(s).c_str());
  if (!s.unavailable.empty()) return 77;
  std::printf("%s\n", annulus::launch::gpu_json(s).c_str());
  for (const std::string& problem : s.problems) check(false, problem);
  for (const annulus::GpuInfo& gpu : s.gpus) {
    check(!gpu.name.empty() && gpu.sms > 0 && gpu.memory_bytes > 1 << 30, gpu.name + " is there");
  }
  check(s.peer_access.size() == s.gpus.size(), "the peer matrix has a row a GPU");
  check_links(s);
  check(s.copy_model.seconds_a_copy > 0 && s.copy_model.seconds_a_copy < 1e-4 &&
            s.copy_model.bytes_a_second > 1e9 && s.copy_model.worst_error < 0.25,
        "queued copies follow the model");
  check(s.beside.size() == 6, "six operations beside a full kernel");
  check(tried(s, "small kernel") && !starts(s, "small kernel"),
        "a full kernel leaves no room for another");
  check(starts(s, "stream write-value"), "a stream may write a value beside it");
  check(s.queues.waiting_streams > 0, "some stream may wait without harm");
  std::printf("%d failed\n", g_failed);
  return g_failed == 0 ? 0 : 1;
}
