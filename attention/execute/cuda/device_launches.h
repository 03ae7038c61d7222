#pragma once

#include "attention/execute/launches.h"
#include "runtime/base/device_buffer.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// The attend tasks of one rank's plan with everything that their kernels read in device memory.
/// Made once, at bind; the host's lists are dropped.
class DeviceLaunches {
 public:
  /// On the current device.
  explicit DeviceLaunches(const Launches& host);

  /// Enqueues attend `index` on context.stream.
  void run(std::int32_t index, const Memory& memory, const LaunchContext& context) const;

  /// A word for each attend: how many of the transfers that bring its keys are over. Kernels whose
  /// keys arrive while they run read it.
  std::uint32_t* arrived() const { return reinterpret_cast<std::uint32_t*>(lists_.data()); }
  int arrived_count() const { return static_cast<int>(geometries_.size()); }

  /// Device memory that the lists take.
  std::int64_t bytes() const { return lists_.bytes(); }

 private:
  const RankPlan& rank_;
  const Kernel& kernel_;
  DeviceBuffer lists_;
  std::vector<AttendGeometry> geometries_;  ///< spans refer to lists_
};

}  // namespace annulus::attn
