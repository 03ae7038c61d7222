#pragma once

#include "attention/execute/schedule.h"

namespace annulus::attn {

inline Lane other(Lane lane) { return lane == Lane::compute ? Lane::copy : Lane::compute; }

/// Waits name marks, steps of the other lane counted from 0: they become events, recorded right
/// after the mark, or after flags that are raised next on its lane, which hold nothing up: so they
/// go with what is before them.
void number_events(Schedule& schedule);

}  // namespace annulus::attn
