#pragma once

#include "attention/kernels/cuda/geometry.h"
#include "attention/kernels/sm90/schedule.h"

#include <cstdint>

// Split over keys, on the host and without a GPU: launches of so few query tiles that most of the
// device would have nothing to do (decode, short sequences over many keys). Each query tile is then
// walked in parts, which leave their states in the workspace, and a kernel after them merges these
// in the order of the keys. Which parts there are follows from the launch, the device and the size
// of the workspace, so the same launch gives the same bits.
//
// Deterministic launches are split so that a row's bits do not depend on what else is in the
// launch, on the rank, the device or the workspace: into parts of fixed positions, by what is known
// of the whole sequence alone (split_of_sequence). A part that a row's query tile does not visit,
// or of which the row sees nothing, has its number and its place in the sums all the same. This is
// worth as much as positions of steps are: they are those of a grid where a segment's first key is
// (gather with PlanOptions::keys_on_grid) and its keys are neighbours. Other lists are served too
// (a step is of the part that it begins in, or of a later one where the list has been there), with
// the same bits from run to run and no more.
namespace annulus::attn::sm90 {

struct Split {
  std::int32_t parts = 1;  ///< of a query tile, at most
  std::int32_t group = 1;  ///< query heads that are packed into one query tile (pack.cuh)
  std::int64_t keys = 0;   ///< Parts::keys
  bool operator==(const Split&) const = default;
  /// Blocks leave states in the workspace, and a merge follows.
  bool merged() const { return parts > 1 || group > 1; }
};

/// What has the longest block end first, where `items` query tiles, of all heads, walk up to
/// `steps` steps each on `sms` multiprocessors. `group`: query heads that may be packed.
Split split_for(std::int64_t items, std::int64_t steps, int sms, std::int64_t group);

/// The same of a launch whose query tiles are counted already (row_tiles). `room`: bytes of the
/// workspace, which bound it. `deterministic`: as split_of_sequence says, whatever `room` is; heads
/// are packed as suits the launch, for that does not show in a row's bits.
Split split_of(const AttendGeometry& geometry, int step_keys, int sms, std::int64_t room,
               bool deterministic);

/// Into which parts all launches of a sequence are split where bits must not depend on how many
/// ranks share it. Where the cuts are follows from sequence_keys and the keys of a step alone:
/// positions that are multiples of `keys`. Whether they are made follows from sequence_rows,
/// all_heads, group and head_dim_v as well, which all ranks are told alike: a device that had all
/// of it to do would be through sooner, and the states of all parts are not too large. Nothing is
/// known of the sequence: nothing is split.
Split split_of_sequence(const AttendGeometry& geometry, int step_keys);

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
