// Any bytes are a .npy that reads whole, or a refusal.
#include "launch/error.h"
#include "launch/io/npy.h"
#include "tests/fuzz/memory_file.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace annulus::launch;
  const fuzz::MemoryFile file(data, size);
  try {
    const StoredTensor tensor = read_npy_header(InputFile(file.path(), "--q"));
    if (tensor.offset + tensor.bytes() != static_cast<std::int64_t>(size)) std::abort();
  } catch (const UsageError&) {
  }
  return 0;
}
