// Any bytes are a .safetensors whose tensor lies inside it, or a refusal.
#include "launch/error.h"
#include "launch/io/safetensors.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace annulus::launch;
  const fuzz::MemoryFile file(data, size);
  try {
    const StoredTensor tensor = read_safetensors_header(InputFile(file.path(), "--q"), "q");
    if (tensor.offset < 8) std::abort();
    if (tensor.offset + tensor.bytes() > static_cast<std::int64_t>(size)) std::abort();
  } catch (const UsageError&) {
  }
  return 0;
}
