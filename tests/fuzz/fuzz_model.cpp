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
  for (const char* key : {"experts", "top_k", "expert_ffn", "shared_ffn"}) {
    if (settings.has(key) && settings.integer(key) < 1) std::abort();
  }
  if (!settings.has("layer_kinds")) return 0;
  std::int64_t layers = 0;  // KIND:COUNT,... of every layer
  for (std::string rest = settings.text("layer_kinds") + ","; !rest.empty();) {
    const std::string part = rest.substr(0, rest.find(','));
    rest.erase(0, part.size() + 1);
    layers += std::stoll(part.substr(part.find(':') + 1));
  }
  if (layers != settings.integer("layers")) std::abort();
  return 0;
}
