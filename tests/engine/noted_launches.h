#pragma once

#include <map>
#include <set>
#include <string>

namespace annulus::testing {

/// Of all kernels of this program, by entry point: their mangled names.
const std::map<const void*, std::string>& registered_kernels();

/// What was launched, and what cudaFuncGetAttributes was asked about, since the last clear().
struct NotedLaunches {
  std::set<const void*> launched, loaded;
  void clear() { *this = {}; }
};
NotedLaunches& noted_launches();

}  // namespace annulus::testing
