// The grouped product on the GPU, for tests that hold host memory.
#include "tests/moe/kernels/grouped_launch.h"

#include "tests/gpu/mirror.h"

namespace annulus::testing {

void launch_grouped(const moe::sm90::GroupedCall& host, const GroupedMemory& memory,
                    moe::sm90::Tuning tuning, int band, int /*blocks*/, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::sm90::GroupedCall call = host;
  // The call's pointers may lie inside of the memory.
  const auto moved = [](const auto* there, const auto* base, const void* at) {
    return reinterpret_cast<const std::byte*>(there) +
           (static_cast<const std::byte*>(at) - reinterpret_cast<const std::byte*>(base));
  };
  const auto* const a = mirror.of(memory.a, memory.a_count);
  const auto* const b = mirror.of(memory.b, memory.b_count);
  auto* const c = mirror.of(memory.c, memory.c_count);
  call.a.data = moved(a, memory.a, host.a.data);
  call.b.data = moved(b, memory.b, host.b.data);
  call.told.c = const_cast<std::byte*>(moved(c, memory.c, host.told.c));
  moe::sm90::launch_grouped(call, tuning, band, nullptr);
  mirror.download();
}

bool may_launch_grouped() { return moe::sm90::has_grouped(); }

}  // namespace annulus::testing
