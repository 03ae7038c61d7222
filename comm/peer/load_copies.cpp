#include "comm/peer/stream_ops.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/device_buffer.h"

#include <cstdint>
#include <initializer_list>

namespace annulus::comm::peer {

void load_copies(cudaStream_t stream) {
  constexpr std::int64_t kRun = 64 << 10;
  constexpr std::int64_t kRows = 4;
  const DeviceBuffer from(2 * kRows * kRun), to(2 * kRows * kRun);
  for (const std::int64_t run : {std::int64_t{4}, std::int64_t{24}, std::int64_t{332}, kRun}) {
    for (const std::int64_t shift : {0, 4}) {
      for (const std::int64_t rows : {std::int64_t{1}, kRows}) {
        copy(stream, {.to = to.data() + shift,
                      .from = from.data(),
                      .to_pitch = run + 16 + shift,
                      .from_pitch = run + 32,
                      .run = run,
                      .rows = rows});
      }
    }
  }
  check_cuda(cudaStreamSynchronize(stream), "copies within a GPU");
}

}  // namespace annulus::comm::peer
