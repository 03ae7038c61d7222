// Copies and conversions that stand next to each other: one launch.

#include "attention/execute/cuda/early.h"
#include "attention/execute/cuda/row_work.cuh"

namespace annulus::attn {
namespace {

__global__ void __launch_bounds__(kThreads) row_works(const __grid_constant__ RowWorks works) {
  await_kernel_before();
  do_works(works, blockIdx.x);
}

}  // namespace

KernelEntries row_works_entries() { return entries_of(&row_works); }

void launch_row_works(std::span<const RowWork> list, const CallWords* begin, std::uint32_t pass,
                      cudaStream_t stream, bool early) {
  RowWorks works{};
  if (begin != nullptr) works.begin = *begin;
  works.pass = pass;
  const unsigned blocks = place_works(list, works);
  if (blocks == 0) {
    if (begin != nullptr) launch_begin(*begin, pass, stream);
    return;
  }
  const Early launch(blocks, kThreads, stream, early);
  (void)cudaLaunchKernelEx(launch.config(), row_works, works);
  check_launch("row works");
}

}  // namespace annulus::attn
