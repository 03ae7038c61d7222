#pragma once

#include <annulus/plan.h>

#include <cstdint>

namespace annulus::attn {

/// FNV-1a over everything that shapes a plan, folded to 31 bits and never 0 (a signal's value).
std::uint32_t hash_of(const Plan::Impl& plan);

}  // namespace annulus::attn
