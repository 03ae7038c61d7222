#include "moe/kernels/sm90/grouped.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::moe::sm90 {

#define ANNULUS_GROUPED_DECLARE(groups, columns, stages)                                 \
  void launch_grouped_##groups##_##columns##_##stages(const GroupedCall& call, int band, \
                                                      void* stream);                     \
  KernelEntries grouped_entries_##groups##_##columns##_##stages();
ANNULUS_GROUPED_TUNINGS(ANNULUS_GROUPED_DECLARE)
#undef ANNULUS_GROUPED_DECLARE

KernelEntries grouped_entries() {
  KernelEntries all;
#define ANNULUS_GROUPED_ENTRIES(groups, columns, stages) \
  all = all + grouped_entries_##groups##_##columns##_##stages();
  ANNULUS_GROUPED_TUNINGS(ANNULUS_GROUPED_ENTRIES)
#undef ANNULUS_GROUPED_ENTRIES
  return all;
}

void launch_grouped(const GroupedCall& call, Tuning tuning, int band, void* stream) {
#define ANNULUS_GROUPED_LAUNCH(groups, columns, stages)                 \
  if (tuning == Tuning{groups, columns, stages}) {                      \
    launch_grouped_##groups##_##columns##_##stages(call, band, stream); \
    return;                                                             \
  }
  ANNULUS_GROUPED_TUNINGS(ANNULUS_GROUPED_LAUNCH)
#undef ANNULUS_GROUPED_LAUNCH
  throw Unsupported(fmt::format("grouped products of {} x {} tiles and {} stages are not compiled",
                                tile_rows_of(tuning), tuning.columns, tuning.stages));
}

}  // namespace annulus::moe::sm90
