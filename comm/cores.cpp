#include "comm/cores.h"

#include <functional>

namespace annulus::comm {

Placement placement(std::string_view host) {
  Placement mine;
  mine.host = std::hash<std::string_view>()(host);
  CPU_ZERO(&mine.cores);
  // On a host of more than 1024 processors this fails and the set stays empty.
  if (sched_getaffinity(0, sizeof mine.cores, &mine.cores) != 0) CPU_ZERO(&mine.cores);
  return mine;
}

bool crowded(std::span<const Placement> all, int rank) {
  const Placement& mine = all[static_cast<std::size_t>(rank)];
  cpu_set_t cores = mine.cores;
  int ranks = 0;
  for (const Placement& other : all) {
    if (other.host != mine.host) continue;
    CPU_OR(&cores, &cores, &other.cores);
    ++ranks;
  }
  const int usable = CPU_COUNT(&cores);
  return usable > 0 && ranks > usable;
}

}  // namespace annulus::comm
