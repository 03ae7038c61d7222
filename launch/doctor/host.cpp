#include "launch/bench/measure.h"
#include "launch/doctor/findings.h"

#include <annulus/built.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <hwloc.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace annulus::launch {
namespace {

/// What hwloc sees of the machine.
class Topology {
 public:
  Topology() {
    hwloc_topology_init(&topology_);
    hwloc_topology_load(topology_);
  }
  Topology(const Topology&) = delete;
  Topology& operator=(const Topology&) = delete;
  ~Topology() { hwloc_topology_destroy(topology_); }

  int count(hwloc_obj_type_t type) const { return hwloc_get_nbobjs_by_type(topology_, type); }

  /// "2 x 1024 KiB"; empty where there is none.
  std::string cache(hwloc_obj_type_t type) const {
    const int n = count(type);
    if (n <= 0) return {};
    const hwloc_obj* first = hwloc_get_obj_by_type(topology_, type, 0);
    return fmt::format("{} x {} KiB", n, first->attr->cache.size / 1024);
  }

 private:
  hwloc_topology_t topology_{};
};

std::string first_line(const char* file) {
  std::ifstream stream(file);
  std::string line;
  std::getline(stream, line);
  return line;
}

std::string gib(double bytes) { return fmt::format("{:.1f} GiB", bytes / (1 << 30)); }

/// A value of /proc/meminfo, bytes; 0: not there.
double memory_of(const std::string& name) {
  std::ifstream stream("/proc/meminfo");
  std::string word;
  double kib = 0;
  std::string unit;
  while (stream >> word >> kib) {
    std::getline(stream, unit);
    if (word == name + ":") return kib * 1024;
  }
  return 0;
}

std::string limit_of(decltype(RLIMIT_NOFILE) resource) {
  rlimit limit{};
  getrlimit(resource, &limit);
  if (limit.rlim_cur == RLIM_INFINITY) return "unlimited";
  return fmt::format("{}", limit.rlim_cur);
}

}  // namespace

void find_cpu(Findings& findings) {
  const Topology topology;
  utsname name{};
  uname(&name);
  findings.add("host", "host", fmt::format("{}, {} {}", name.nodename, name.sysname, name.release));
  findings.add("cpu", "CPU", processor_name());
  findings.add("cpu_topology", "",
               fmt::format("{} sockets, {} NUMA nodes, {} cores, {} threads",
                           topology.count(HWLOC_OBJ_PACKAGE), topology.count(HWLOC_OBJ_NUMANODE),
                           topology.count(HWLOC_OBJ_CORE), topology.count(HWLOC_OBJ_PU)));
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  sched_getaffinity(0, sizeof allowed, &allowed);
  findings.add("cpu_allowed", "", fmt::format("{} threads may be used here", CPU_COUNT(&allowed)));
  std::string caches;
  constexpr std::array<std::pair<const char*, hwloc_obj_type_t>, 3> kCaches{
      {{"L1d", HWLOC_OBJ_L1CACHE}, {"L2", HWLOC_OBJ_L2CACHE}, {"L3", HWLOC_OBJ_L3CACHE}}};
  for (const auto& [level, type] : kCaches) {
    const std::string size = topology.cache(type);
    if (!size.empty()) caches += fmt::format("{}{} {}", caches.empty() ? "" : ", ", level, size);
  }
  findings.add("cpu_caches", "", caches.empty() ? "caches unknown to hwloc" : caches);
  findings.add("simd_targets", "SIMD",
               fmt::format("{} (kernels take the first)", fmt::join(simd_targets(), ", ")));
}

void find_memory_and_limits(Findings& findings) {
  findings.add(
      "memory", "memory",
      fmt::format("{}, {} available", gib(memory_of("MemTotal")), gib(memory_of("MemAvailable"))));
  const std::string cgroup = first_line("/sys/fs/cgroup/memory.max");
  if (!cgroup.empty() && cgroup != "max") {
    findings.add("memory_cgroup", "", fmt::format("{} bytes for this container", cgroup));
  }
  findings.add("limits", "limits",
               fmt::format("locked memory (ulimit -l) {} bytes, open files (ulimit -n) {}",
                           limit_of(RLIMIT_MEMLOCK), limit_of(RLIMIT_NOFILE)));
  struct statvfs shared {};
  if (statvfs("/dev/shm", &shared) != 0) {
    findings.add("dev_shm", "/dev/shm", fmt::format("unavailable: {}", std::strerror(errno)));
    findings.missing.push_back({"/dev/shm", "MPI ranks of one host use it: mount a tmpfs there"});
    return;
  }
  const auto block = static_cast<double>(shared.f_frsize);
  const double free = block * static_cast<double>(shared.f_bavail);
  findings.add(
      "dev_shm", "/dev/shm",
      fmt::format("{}, {} free", gib(block * static_cast<double>(shared.f_blocks)), gib(free)));
  constexpr double kLittle = 256.0 * (1 << 20);
  if (free < kLittle) {
    findings.missing.push_back(
        {"room in /dev/shm", "MPI ranks of one host use it: docker run --shm-size=1g"});
  }
}

void find_counters(Findings& findings) {
  perf_event_attr ask{};
  ask.size = sizeof ask;
  ask.type = PERF_TYPE_HARDWARE;
  ask.config = PERF_COUNT_HW_CPU_CYCLES;
  ask.exclude_kernel = 1;
  ask.exclude_hv = 1;
  const long handle = syscall(SYS_perf_event_open, &ask, 0, -1, -1, 0UL);
  const int why = errno;
  const std::string level = first_line("/proc/sys/kernel/perf_event_paranoid");
  if (handle >= 0) {
    close(static_cast<int>(handle));
    findings.add("counters", "counters",
                 fmt::format("perf_event_open works (perf_event_paranoid {})", level));
    return;
  }
  findings.add("counters", "counters",
               fmt::format("unavailable: perf_event_open for cycles: {} (perf_event_paranoid {})",
                           std::strerror(why), level.empty() ? "not there" : level));
  const bool forbidden = why == EACCES || why == EPERM;
  findings.missing.push_back(
      {"hardware counters", forbidden ? "sysctl kernel.perf_event_paranoid=1, as root"
                                      : "this (virtual) machine does not offer them"});
}

}  // namespace annulus::launch
