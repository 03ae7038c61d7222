#pragma once

#include <annulus/layout.h>
#include <annulus/mesh.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

namespace annulus::launch {

/// A full tensor as files hold it: `outer` rows of `tokens` runs of `run` bytes. [batch, seq,
/// heads, dim] is batch rows of seq runs, lse [batch, heads, seq] is batch * heads rows of runs of
/// 4 bytes.
struct Strips {
  std::int64_t outer = 1;
  std::int64_t tokens = 0;
  std::int64_t run = 0;
};

/// Reads or writes bytes [begin, ...) of the full tensor; called on rank 0 only, in order.
using ReadFull = std::function<void(std::int64_t begin, std::span<std::byte> into)>;
using WriteFull = std::function<void(std::int64_t begin, std::span<const std::byte> data)>;

/// From rank 0 to the shards: `local` is [outer, seq_local, run] of this rank. Rank 0 holds a
/// window of about 8 MiB of the tensor at a time, so that it is read once, in order. Collective.
void scatter(Mesh& mesh, const Strips& strips, const std::vector<Shard>& shards,
             const ReadFull& read, std::span<std::byte> local, std::string_view what);
/// The way back.
void gather(Mesh& mesh, const Strips& strips, const std::vector<Shard>& shards,
            const WriteFull& write, std::span<const std::byte> local, std::string_view what);

}  // namespace annulus::launch
