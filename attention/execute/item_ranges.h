#pragma once

#include "runtime/base/host_range.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// What a profiler calls the items of a plan: describe()'s texts, made once, at bind, and only
/// where a profiler listens.
class ItemRanges {
 public:
  explicit ItemRanges(const RankPlan& plan) {
    if (!profiler_listens()) return;
    for (std::size_t i = 0; i < plan.items.size(); ++i) {
      names_.push_back(range_name(describe(plan, static_cast<std::int32_t>(i))));
    }
  }

  RangeName of(std::int32_t item) const {
    return names_.empty() ? nullptr : names_[static_cast<std::size_t>(item)];
  }

 private:
  std::vector<RangeName> names_;
};

}  // namespace annulus::attn
