#pragma once

#include <annulus/cost.h>

#include <string>

namespace annulus::cost {

/// A line for each reason why two rows of the table differ, with its number.
std::string gaps_text(const CostReport& report);
/// self_checks as lines: "ok", or lines that start with WARNING.
std::string checks_text(const CostReport& report);

/// What the entries of `flops` sum to when every pair is computed once: the sp ranks of one tp
/// rank, or, where all tp * sp ranks are listed, the group.
std::int64_t masked_flops_of(const CostReport& report, const std::vector<std::int64_t>& flops,
                             bool backward);

}  // namespace annulus::cost
