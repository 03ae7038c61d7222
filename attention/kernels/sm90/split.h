#pragma once

#include "attention/kernels/cuda/geometry.h"
#include "attention/kernels/sm90/schedule.h"

#include <cstdint>

// Split over keys, on the host and without a GPU: launches of so few query tiles that most of the
// device would have nothing to do (decode, short sequences over many keys). Each query tile is then
// walked in parts, which leave their states in the workspace, and a kernel after them merges these
// in the order of the keys. Which parts there are follows from the launch and the device alone, so
// the same launch gives the same bits.
namespace annulus::attn::sm90 {

/// Parts of a query tile where `items` query tiles, of all heads, walk up to `steps` steps each and
/// `sms` multiprocessors are there: what has the longest block end first. 1: a split gains nothing.
int parts_for(std::int64_t items, std::int64_t steps, int sms);

/// The same of a launch whose query tiles are counted already (row_tiles). `room`: bytes of the
/// workspace; as many parts as it holds. 1 where the result must not depend on how many ranks share
/// the work: `deterministic`.
int parts_of(const AttendGeometry& geometry, int step_keys, int sms, std::int64_t room,
             bool deterministic);

/// Bytes of workspace, schedule included, of `parts` parts of each of `row_tiles` query tiles.
std::int64_t split_bytes(const AttendGeometry& geometry, std::int64_t row_tiles, int parts);

/// No launch of these rows, heads and keys wants more; its query tiles need not be known yet.
std::int64_t most_split_bytes(const AttendGeometry& geometry, int step_keys);

/// Where schedule and parts lie in the workspace.
Schedule schedule_in(std::byte* workspace, const AttendGeometry& geometry, int parts);
Parts parts_in(std::byte* workspace, const AttendGeometry& geometry, int parts);

/// What the blocks of a split launch are told: they leave states, each part in its place.
ForwardParams leaving_parts(const ForwardParams& params, const Parts& parts);

}  // namespace annulus::attn::sm90
