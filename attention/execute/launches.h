#pragma once

#include "attention/execute/memory.h"
#include "attention/kernels/dispatch.h"
#include "attention/kernels/tile_index.h"

#include <annulus/plan.h>

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

namespace annulus::attn {

/// One attend task made ready for a kernel: segments and tiles are compiled once, at bind. Tiles
/// are joined where the kernel takes them so.
struct Launch {
  std::vector<QuerySegment> queries;
  std::vector<KeySegment> keys;
  std::vector<Tile> tiles;
  TileIndex index;             ///< device kernels only
  std::int64_t first_row = 0;  ///< its rows in RankPlan::rows; kernels count from there
  /// Device kernels of an attend that takes its keys as they arrive: KeySegment::needed, by
  /// segment, and how many transfers there are.
  std::vector<std::vector<std::uint32_t>> needed{};
  std::uint32_t arrivals = 0;
};

/// What the dispatch table is asked about a resolved problem.
KernelQuery kernel_query(const Problem& problem, Pass pass, std::string_view backend);

/// Bytes of kernel workspace that the largest attend of a rank's plan wants, deterministic or not:
/// at least what the same says of its launches. Tiles, which take a while to list, are counted.
std::int64_t workspace_bytes(const Plan& plan, const RankPlan& rank, const Kernel& kernel,
                             int threads);

class Launches;

/// The same of launches that are compiled already.
std::int64_t workspace_bytes(const Launches& launches, int threads);

/// The attend tasks of one rank's plan, compiled for one kernel's tiles, in host memory.
class Launches {
 public:
  /// `deterministic`: backward's turns are wanted, which only single tiles have, and forward is
  /// told of the whole sequence, by which few rows are split over keys.
  Launches(const Plan& plan, const RankPlan& rank, const Kernel& kernel,
           bool deterministic = false);

  const RankPlan& rank() const { return rank_; }
  const Kernel& kernel() const { return kernel_; }
  /// Of all rows that attends meet; those of one attend lie together: geometry().intervals.
  const std::vector<RowIntervals>& intervals() const { return intervals_; }
  /// Attends one after the other of the same rows and keys, slices of heads, share one.
  const std::vector<Launch>& launches() const { return launches_; }
  const Launch& launch(std::int32_t index) const {
    return launches_[static_cast<std::size_t>(list_of_[static_cast<std::size_t>(index)])];
  }
  /// The first attend that has the lists of attend `index`.
  std::int32_t first_with_lists_of(std::int32_t index) const {
    return static_cast<std::int32_t>(
        std::find(list_of_.begin(), list_of_.end(), list_of_[static_cast<std::size_t>(index)]) -
        list_of_.begin());
  }

  /// What the kernel is told of attend `index`: spans refer to this object.
  AttendGeometry geometry(std::int32_t index) const;

  /// Runs attend `index` of the rank's plan, on the host.
  void run(std::int32_t index, const Memory& memory, const LaunchContext& context) const;

 private:
  const RankPlan& rank_;
  const Kernel& kernel_;
  Problem problem_;
  bool deterministic_ = false;
  std::vector<RowIntervals> intervals_;  ///< by row of RankPlan::rows
  std::vector<Launch> launches_;
  std::vector<std::int32_t> list_of_;  ///< by attend: of launches_
};

/// Calls `kernel` for one attend with the operands that `memory` holds. `done`: BackwardParams.
void run_attend(const Kernel& kernel, const Attend& attend, const AttendGeometry& geometry,
                const Memory& memory, const LaunchContext& context, std::uint32_t* done = nullptr);

}  // namespace annulus::attn
