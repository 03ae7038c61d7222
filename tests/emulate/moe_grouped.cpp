// The grouped product on emulated blocks. Compiled with cuda_shim.h before it and device/ before
// the repository's root, as forward.cpp is.
#include "tests/moe/kernels/grouped_launch.h"

#include "moe/kernels/sm90/grouped.cuh"
#include "tests/emulate/copies.h"
#include "tests/emulate/tensor_core.h"

#include <stdexcept>

namespace annulus::testing {
namespace {

using namespace moe::sm90;  // NOLINT
using emulate::Machine;

CUtensorMap map_of(const MapShape& shape, int rows) {
  return {shape.data, shape.extents, shape.strides, rows};
}

struct Run {
  const Grouped& told;
  const Maps& maps;
  unsigned blocks;
  std::uint64_t seed;
};

template <int kGroups, int kColumns, int kStages, bool kAcross>
void run_blocks(const Run& run) {
  using Memory = Shared<kGroups, kColumns, kStages>;
  static_assert(sizeof(Memory) <= emulate::kSharedBytes);
  for (unsigned i = 0; i < run.blocks; ++i) {
    emulate::reset_products();
    Machine machine({run.seed + i, {}});
    machine.run(128 * (kGroups + 1), {i, 0, 0}, {run.blocks, 1, 1}, [&] {
      run_block<kGroups, kColumns, kStages, kAcross>(
          run.told, run.maps, reinterpret_cast<unsigned char*>(machine.shared()));
    });
  }
}

}  // namespace

void launch_grouped(const GroupedCall& call, const GroupedMemory& /*memory*/, Tuning tuning,
                    int band, int blocks, std::uint64_t seed) {
  Grouped told = call.told;
  told.band = band;
  const Maps maps{map_of(call.a, tile_rows_of(tuning)),
                  map_of(call.b, box_rows_of(tuning, call.across))};
  const Run run{told, maps, static_cast<unsigned>(blocks == 0 ? 3 : blocks), seed};
#define ANNULUS_RUN(groups, columns, stages)                       \
  if (tuning == Tuning{groups, columns, stages}) {                 \
    call.across ? run_blocks<groups, columns, stages, true>(run)   \
                : run_blocks<groups, columns, stages, false>(run); \
    return;                                                        \
  }
  ANNULUS_GROUPED_TUNINGS(ANNULUS_RUN)
#undef ANNULUS_RUN
  throw std::runtime_error("no such tuning");
}

bool may_launch_grouped() { return true; }

}  // namespace annulus::testing
