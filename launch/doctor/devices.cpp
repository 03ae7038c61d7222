#include "launch/doctor/findings.h"
#include "launch/ranks/ranks.h"

#include <annulus/built.h>

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace annulus::launch {
namespace {

/// Where PATH has it; empty: nowhere.
std::string find_program(const std::string& name) {
  const char* path = std::getenv("PATH");
  std::string folders = path == nullptr ? "" : path;
  while (!folders.empty()) {
    const std::size_t end = folders.find(':');
    const std::filesystem::path file = std::filesystem::path(folders.substr(0, end)) / name;
    std::error_code error;
    if (std::filesystem::is_regular_file(file, error)) return file.string();
    folders = end == std::string::npos ? "" : folders.substr(end + 1);
  }
  return {};
}

/// "Model: NVIDIA H200" of each GPU that the kernel driver lists.
std::vector<std::string> driver_gpus() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/driver/nvidia/gpus", error)) {
    std::ifstream stream(entry.path() / "information");
    for (std::string line; std::getline(stream, line);) {
      if (line.starts_with("Model:")) {
        names.push_back(line.substr(line.find_first_not_of(" \t", 6)));
      }
    }
  }
  return names;
}

bool library_loads(const char* name) {
  void* handle = dlopen(name, RTLD_LAZY | RTLD_LOCAL);
  if (handle == nullptr) return false;
  dlclose(handle);
  return true;
}

}  // namespace

void find_mpi(Findings& findings) {
  const MpiFacts mpi = mpi_facts();
  findings.add("mpi", "MPI", mpi.version);
  if (mpi.built) {
    findings.add("mpi_standard", "", fmt::format("MPI {}, {}", mpi.standard, mpi.cuda_aware));
    findings.add("mpi_threads", "", mpi.threads);
  } else {
    findings.missing.push_back(
        {"MPI", "apt-get install openmpi-bin libopenmpi-dev, then configure and build again"});
  }
  const std::string mpirun = find_program("mpirun");
  findings.add("mpirun", "mpirun", mpirun.empty() ? "not in PATH" : mpirun);
  if (mpirun.empty() && mpi.built) {
    findings.missing.push_back({"mpirun", "apt-get install openmpi-bin"});
  }
  findings.add("transports", "transports",
               fmt::format("{} built", fmt::join(transports_built(), ", ")));
}

void find_gpus(Findings& findings) {
  const std::vector<std::string> gpus = driver_gpus();
  const std::string smi = find_program("nvidia-smi");
  if (gpus.empty()) {
    findings.add(
        "gpus", "GPUs",
        fmt::format("none: /proc/driver/nvidia/gpus {}, /dev/nvidia0 {}, nvidia-smi {}",
                    std::filesystem::exists("/proc/driver/nvidia/gpus") ? "empty" : "not there",
                    std::filesystem::exists("/dev/nvidia0") ? "there" : "not there",
                    smi.empty() ? "not in PATH" : smi));
    findings.missing.push_back(
        {"a GPU", "with an NVIDIA one: apt-get install nvidia-driver (contrib non-free)"});
  } else {
    findings.add("gpus", "GPUs", fmt::format("{}: {}", gpus.size(), fmt::join(gpus, ", ")));
  }
  findings.add("cuda_toolkit", "CUDA", ANNULUS_CUDA_FOUND);
  if (std::string_view(ANNULUS_CUDA_FOUND).starts_with("not found")) {
    findings.missing.push_back(
        {"the CUDA toolkit", "apt-get install nvidia-cuda-toolkit; configure again"});
  }
  const bool nccl = library_loads("libnccl.so.2");
  const std::vector<std::string> built = transports_built();
  const bool used = std::ranges::find(built, "nccl") != built.end();
  findings.add(
      "nccl", "NCCL",
      fmt::format("{}{}", nccl ? "libnccl.so.2 loads" : "none: the loader finds no libnccl.so.2",
                  used ? "" : "; the nccl transport is not built"));
  if (!nccl) findings.missing.push_back({"NCCL", "apt-get install libnccl2 libnccl-dev"});
}

}  // namespace annulus::launch
