#pragma once

#include <annulus/cost.h>

#include <cstdint>
#include <vector>

namespace annulus::cost {

/// Throws InvalidArgument for sizes that cannot be.
void validate(const CostRequest& request);

/// All layers, also of a request that does not list them.
std::vector<LayerGroup> kinds_of(const CostRequest& request);

std::int64_t keys_of(const CostRequest& request);             ///< prefill: seq_kv, or seq
std::int64_t heads_of_genz_rank(const CostRequest& request);  ///< ceil(H / (tp ep))
std::int64_t heads_of_tp_rank(const CostRequest& request);    ///< ceil(H / tp)

/// GenZ's MACs of one rank with prompt lengths divided by `divisor`: sp is the original accounting,
/// 1 the corrected one.
MacAccounting genz_macs(const CostRequest& request, std::int64_t divisor);
/// `count` times `factor`, rounded to the nearest integer, ties to even.
std::int64_t scaled_count(std::int64_t count, double factor);
/// Every count times softmax_factor.
MacAccounting scaled(const MacAccounting& macs, const CostRequest& request);

/// Pairs of all batch elements, for one head.
std::int64_t full_pairs(const CostRequest& request);
std::vector<std::int64_t> masked_pairs_by_rank(const CostRequest& request);
ExactAccounting exact_flops(const CostRequest& request);

}  // namespace annulus::cost
