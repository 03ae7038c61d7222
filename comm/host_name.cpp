#include "comm/host_name.h"

#include "comm/communicator.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>
#include <vector>

namespace annulus::comm {

std::string host_name() {
  std::array<char, 256> name{};
  if (gethostname(name.data(), name.size() - 1) != 0 || name[0] == '\0') return "unknown-host";
  return name.data();
}

int local_rank(Communicator& communicator) {
  using Name = std::array<char, 256>;
  Name mine{};
  communicator.host().copy(mine.data(), mine.size() - 1);
  std::vector<Name> all(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)),
                          "host names");
  return static_cast<int>(std::count(all.begin(), all.begin() + communicator.rank(), mine));
}

}  // namespace annulus::comm
