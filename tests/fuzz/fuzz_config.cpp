// Any text is a configuration of which every value reads as its type says, or a refusal.
#include "launch/error.h"
#include "launch/options/grid.h"
#include "launch/options/sources.h"
#include "tests/fuzz/memory_file.h"

namespace annulus::launch {
namespace {

void read_value(const Settings& settings, const Key& key) {
  switch (key.type) {
    case ValueType::integer:
      settings.integer(key.name);
      break;
    case ValueType::real:
      if (settings.text(key.name) != key.allowed) settings.real(key.name);
      break;
    case ValueType::boolean:
      settings.flag(key.name);
      break;
    case ValueType::choices:
      settings.words(key.name);
      break;
    case ValueType::path:
      settings.path(key.name);
      break;
    case ValueType::choice:
    case ValueType::text:
      settings.text(key.name);
      break;
  }
}

/// What was accepted must not be refused later.
void read_all(const Settings& settings) {
  std::vector<GridPoint> points;
  try {
    points = grid_of(settings);
  } catch (const UsageError&) {
    return;  // too many points
  }
  for (const Key& key : keys()) {
    if (points.front().settings.has(key.name)) read_value(points.front().settings, key);
  }
}

}  // namespace
}  // namespace annulus::launch

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace annulus::launch;
  const fuzz::MemoryFile file(data, size);
  Settings settings;
  try {
    read_config_file(file.path(), settings);
  } catch (const UsageError&) {
    return 0;
  }
  read_all(settings);
  return 0;
}
