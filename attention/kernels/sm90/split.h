#pragma once

#include "attention/kernels/cuda/geometry.h"
#include "attention/kernels/sm90/schedule.h"

#include <cstdint>

// Split over keys, on the host and without a GPU: launches of so few query tiles that most of the
// device would have nothing to do (decode, short sequences over many keys). Each query tile is then
// walked in parts, which leave their states in the workspace, and a kernel after them merges these
// in the order of the keys. Which parts there are follows from the launch, the device and the size
// of the workspace, so the same launch gives the same bits.
namespace annulus::attn::sm90 {

struct Split {
  std::int32_t parts = 1;  ///< of a query tile, at most
  std::int32_t group = 1;  ///< query heads that are packed into one query tile (pack.cuh)
  bool operator==(const Split&) const = default;
  /// Blocks leave states in the workspace, and a merge follows.
  bool merged() const { return parts > 1 || group > 1; }
};

/// What has the longest block end first, where `items` query tiles, of all heads, walk up to
/// `steps` steps each on `sms` multiprocessors. `group`: query heads that may be packed.
Split split_for(std::int64_t items, std::int64_t steps, int sms, std::int64_t group);

/// The same of a launch whose query tiles are counted already (row_tiles). `room`: bytes of the
/// workspace, which bound it. Nothing is split where the result must not depend on how many ranks
/// share the work: `deterministic`.
Split split_of(const AttendGeometry& geometry, int step_keys, int sms, std::int64_t room,
               bool deterministic);

/// Bytes of workspace, schedule included, of such a launch.
std::int64_t split_bytes(const AttendGeometry& geometry, const Split& split);

/// For what launches of these rows, heads and keys want; query tiles need not be known yet.
std::int64_t most_split_bytes(const AttendGeometry& geometry, int step_keys);

/// Where schedule and parts lie in the workspace.
Schedule schedule_in(std::byte* workspace, const AttendGeometry& geometry, const Split& split,
                     int sms);
/// May its schedule be kept from call to call (kept.h)? Then nothing is left for a kernel before
/// it.
bool takes_kept(const AttendGeometry& geometry, const Split& split);
/// Where it lies in AttendGeometry::kept.
Schedule kept_schedule(const AttendGeometry& geometry, int sms, bool flops_assign);
Parts parts_in(std::byte* workspace, const AttendGeometry& geometry, const Split& split);

/// What the blocks of a launch are told: where it is split, to leave states, each part in its
/// place, and to read packed queries.
ForwardParams told_to_blocks(const ForwardParams& params, const Parts& parts);
cuda::Geometry told_to_blocks(const cuda::Geometry& geometry, const Parts& parts);

}  // namespace annulus::attn::sm90
