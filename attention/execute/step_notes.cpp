#include "attention/execute/step_notes.h"

#include <algorithm>
#include <cstddef>

namespace annulus::attn {
namespace {

bool orders_streams(const Step& step) {
  return step.kind == Step::Kind::record || step.kind == Step::Kind::wait;
}

}  // namespace

std::vector<StepNote> step_notes(const Schedule& schedule,
                                 const std::vector<std::int32_t>& joined) {
  const std::vector<Step>& steps = schedule.steps;
  std::vector<StepNote> notes(steps.size());
  for (std::size_t s = 0; s < steps.size();) {
    const auto end = s + static_cast<std::size_t>(std::max(joined[s], 1));
    if (orders_streams(steps[s])) {
      s = end;
      continue;
    }
    StepNote note{.of = static_cast<std::int32_t>(s)};
    if (s > 0 && steps[s - 1].lane == steps[s].lane) note.after = notes[s - 1].of;
    std::fill(notes.begin() + static_cast<std::ptrdiff_t>(s),
              notes.begin() + static_cast<std::ptrdiff_t>(end), note);
    s = end;
  }
  return notes;
}

}  // namespace annulus::attn
