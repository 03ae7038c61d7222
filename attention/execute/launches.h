#pragma once

#include "attention/execute/memory.h"
#include "attention/kernels/dispatch.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// One attend task made ready for a kernel: segments and tiles are compiled once, at bind.
struct Launch {
  std::vector<QuerySegment> queries;
  std::vector<KeySegment> keys;
  std::vector<Tile> tiles;
};

/// Bytes of kernel workspace that the largest attend of a rank's plan wants.
std::int64_t workspace_bytes(const Plan& plan, const RankPlan& rank, const Kernel& kernel,
                             int threads);

/// The attend tasks of one rank's plan, compiled for one kernel's tiles.
class Launches {
 public:
  Launches(const Plan& plan, const RankPlan& rank, const Kernel& kernel);

  /// Runs attend `index` of the rank's plan.
  void run(std::int32_t index, const Memory& memory, const LaunchContext& context) const;

 private:
  const RankPlan& rank_;
  const Kernel& kernel_;
  Problem problem_;
  std::vector<RowIntervals> intervals_;
  std::vector<Launch> launches_;
};

}  // namespace annulus::attn
