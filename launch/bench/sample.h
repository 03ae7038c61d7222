#pragma once

#include "launch/bench/check.h"

#include <annulus/reference.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::launch {

/// One key/value head of one batch element, with all query heads that read it.
struct HeadGroup {
  std::int64_t batch = 0;
  std::int64_t head_kv = 0;
};

/// The groups to check: the same on every rank. All of them, or two at random.
std::vector<HeadGroup> choose_groups(const CheckRequest& request);

/// Indices into `positions` (a rank's query rows) to check; within the budget of FLOPs.
std::vector<std::int64_t> choose_rows(const CheckRequest& request, const KeyLists& mask,
                                      std::span<const std::int64_t> positions);
/// The same of a rank's keys.
std::vector<std::int64_t> choose_keys(const CheckRequest& request, const KeyLists& mask,
                                      std::span<const std::int64_t> positions);

}  // namespace annulus::launch
