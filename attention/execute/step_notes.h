#pragma once

#include "attention/execute/schedule.h"

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// Between which events of a recorded call a step runs. Each event costs the stream a microsecond,
/// which a call that is not recorded does not spend: so there are no more than needed.
struct StepNote {
  static constexpr std::int32_t kNone = -1;

  /// The step whose events these are: the first of those that are one launch; kNone: not noted.
  std::int32_t of = kNone;
  /// The step before, whose end is this one's beginning; kNone: it has an event of its own.
  std::int32_t after = kNone;
};

/// Pure; by step. `joined`: joined_prepares(). Steps of other lanes in between cut the sharing:
/// they may be on the same stream (DeviceMode::blocking).
std::vector<StepNote> step_notes(const Schedule& schedule, const std::vector<std::int32_t>& joined);

}  // namespace annulus::attn
