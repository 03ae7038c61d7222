// Any bytes are a config.json that fills shape keys with values they may have, or a refusal.
#include "launch/error.h"
#include "launch/options/sources.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace annulus::launch;
  const fuzz::MemoryFile file(data, size);
  Settings settings;
  try {
    read_model(file.path(), settings);
  } catch (const UsageError&) {
    return 0;
  }
  for (const char* key : {"heads", "heads_kv", "head_dim", "layers"}) {
    if (settings.integer(key) < 1) std::abort();
  }
  return 0;
}
