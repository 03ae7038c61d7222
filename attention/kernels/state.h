#pragma once

#include <cstdint>

namespace annulus::attn {

/// One row of merge(): (o, lse) of `dim` elements takes in (other, other_lse). Either may be the
/// identity, lse = -inf, whose o is not read.
void merge_row(float* o, float& lse, const float* other, float other_lse, std::int64_t dim);

}  // namespace annulus::attn
