#include <annulus/counters.h>
#include <annulus/gpu.h>

#include "comm/nccl/nccl_communicator.h"
#include "runtime/engine/gpu/device.h"
#include "runtime/engine/gpu/probes.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <fstream>

namespace annulus {
namespace {

using engine::check_cuda;

std::string version_text(int version) {
  return fmt::format("{}.{}", version / 1000, version % 1000 / 10);
}

/// "580.159.04"; empty where the kernel's driver does not say.
std::string driver_release() {
  std::ifstream stream("/proc/driver/nvidia/version");
  std::string word;
  while (stream >> word) {
    if (!word.empty() && word.find_first_not_of("0123456789.") == std::string::npos &&
        word.find('.') != std::string::npos) {
      return word;
    }
  }
  return {};
}

GpuInfo info_of(int ordinal) {
  cudaDeviceProp properties{};
  check_cuda(cudaGetDeviceProperties(&properties, ordinal), "cudaGetDeviceProperties");
  std::array<char, 32> bus{};
  check_cuda(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), ordinal),
             "cudaDeviceGetPCIBusId");
  return {.ordinal = ordinal,
          .name = properties.name,
          .capability = fmt::format("{}.{}", properties.major, properties.minor),
          .bus_id = bus.data(),
          .memory_bytes = static_cast<std::int64_t>(properties.totalGlobalMem),
          .sms = properties.multiProcessorCount,
          .copy_engines = properties.asyncEngineCount};
}

std::vector<std::vector<bool>> peer_access_of(int count) {
  std::vector<std::vector<bool>> access(static_cast<std::size_t>(count));
  for (int of = 0; of < count; ++of) {
    for (int to = 0; to < count; ++to) {
      int can = of == to ? 1 : 0;
      if (of != to) check_cuda(cudaDeviceCanAccessPeer(&can, of, to), "cudaDeviceCanAccessPeer");
      access[static_cast<std::size_t>(of)].push_back(can != 0);
    }
  }
  return access;
}

/// What can be measured; a section that fails becomes a problem.
class Surveyor {
 public:
  Surveyor(GpuSurvey& survey, double timeout_s) : survey_(survey), timeout_s_(timeout_s) {}

  void run() {
    section("peer access", [&] { survey_.peer_access = peer_access_of(count()); });
    section("links", [&] { links(); });
    section("NCCL", [&] { nccl(); });
    section("copy model", [&] { copies(); });
    section("beside a full kernel", [&] {
      survey_.beside = engine::try_beside_full_kernel(has_link(0, 1) ? 1 : -1, timeout_s_);
    });
    section("queues", [&] { survey_.queues = engine::measure_queues(timeout_s_); });
    section("counters", [&] {
      const HardwareCounters counters(0, DType::bf16, timeout_s_);
      survey_.counters_unavailable = counters.unavailable();
      survey_.counters = counters.source();
    });
  }

 private:
  int count() const { return static_cast<int>(survey_.gpus.size()); }

  bool has_link(int of, int to) const {
    const auto& access = survey_.peer_access;
    const auto row = static_cast<std::size_t>(of);
    const auto column = static_cast<std::size_t>(to);
    return row < access.size() && column < access[row].size() && access[row][column];
  }

  void links() {
    if (count() == 1) survey_.links_unavailable = "one GPU: no links";
    for (int to = 0; count() > 1 && to < count(); ++to) {
      const int from = (to + 1) % count();
      if (!has_link(to, from)) continue;
      survey_.links.push_back(engine::measure_link(to, from, timeout_s_));
    }
    if (count() > 1 && survey_.links.empty()) {
      survey_.links_unavailable = "no GPU may address the next one's memory";
    }
  }

  void nccl() {
    if (survey_.links.empty()) return;
    survey_.nccl_unavailable = comm::nccl::why_not();
    if (survey_.nccl_unavailable.empty()) engine::measure_nccl(survey_.links.front(), timeout_s_);
  }

  void copies() {
    const bool linked = has_link(0, 1);
    survey_.copies_of = linked ? "pulls of GPU 0 from GPU 1" : "local copies of GPU 0";
    survey_.copy_samples = engine::measure_queued_copies(0, linked ? 1 : 0, timeout_s_);
    survey_.copy_model = fit_copy_model(survey_.copy_samples);
  }

  template <typename Fn>
  void section(const char* name, Fn&& fn) {
    try {
      fn();
    } catch (const Error& error) {
      survey_.problems.push_back(fmt::format("{}: {}", name, error.what()));
    }
  }

  GpuSurvey& survey_;
  double timeout_s_;
};

}  // namespace

GpuSurvey survey_gpus(double timeout_s) {
  GpuSurvey survey;
  survey.runtime = version_text(CUDART_VERSION);
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    survey.unavailable = status == cudaSuccess ? "CUDA sees none" : cudaGetErrorString(status);
    survey.links_unavailable = survey.counters_unavailable = "no GPU";
    return survey;
  }
  try {
    int version = 0;
    check_cuda(cudaDriverGetVersion(&version), "cudaDriverGetVersion");
    const std::string release = driver_release();
    survey.driver =
        fmt::format("{}{}CUDA {}", release, release.empty() ? "" : ", ", version_text(version));
    for (int i = 0; i < count; ++i) survey.gpus.push_back(info_of(i));
  } catch (const DeviceError& error) {
    survey.unavailable = error.what();
    survey.gpus.clear();
    return survey;
  }
  Surveyor(survey, timeout_s).run();
  return survey;
}

}  // namespace annulus
