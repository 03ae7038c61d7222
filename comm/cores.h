#pragma once

#include <sched.h>

#include <cstdint>
#include <span>
#include <string_view>

namespace annulus::comm {

/// What one rank tells the others of where it may run.
struct Placement {
  std::uint64_t host = 0;  ///< hash of its name
  cpu_set_t cores{};       ///< logical processors it may use
};

/// Of the calling thread.
Placement placement(std::string_view host);

/// More ranks on the host of `all[rank]` than processors that any of them may use.
bool crowded(std::span<const Placement> all, int rank);

}  // namespace annulus::comm
