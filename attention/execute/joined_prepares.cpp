#include "attention/execute/joined_prepares.h"

#include <algorithm>
#include <cstddef>

namespace annulus::attn {

bool may_join(const RankPlan& plan, const Step& step) {
  if (step.kind != Step::Kind::compute) return false;
  const Item& item = plan.items[static_cast<std::size_t>(step.index)];
  if (item.kind != ItemKind::prepare) return false;
  const PrepareKind kind = plan.prepares[static_cast<std::size_t>(item.payload)].kind;
  return kind == PrepareKind::copy || kind == PrepareKind::convert;
}

std::vector<std::int32_t> joined_prepares(const RankPlan& plan, const Schedule& schedule) {
  const std::vector<Step>& steps = schedule.steps;
  std::vector<std::int32_t> joined(steps.size(), 1);
  const auto suits = [&](std::size_t first, std::size_t next) {
    if (steps[next].lane != steps[first].lane || !may_join(plan, steps[next])) return false;
    const auto waits = plan.waits(plan.items[static_cast<std::size_t>(steps[next].index)]);
    return std::none_of(steps.begin() + static_cast<std::ptrdiff_t>(first),
                        steps.begin() + static_cast<std::ptrdiff_t>(next), [&](const Step& before) {
                          return std::find(waits.begin(), waits.end(), before.index) != waits.end();
                        });
  };
  for (std::size_t s = 0; s < steps.size();) {
    std::size_t end = s + 1;
    while (may_join(plan, steps[s]) && end < steps.size() && end - s < kMostJoined &&
           suits(s, end)) {
      ++end;
    }
    joined[s] = static_cast<std::int32_t>(end - s);
    s = end;
  }
  return joined;
}

}  // namespace annulus::attn
