#pragma once

#include <string>

namespace annulus::testing {

struct Tally {
  int cases = 0;
  int failed = 0;
};

/// What the contract of CUDA launches says beside numbers: places of operands, flags that are
/// raised late, aborts, capture. Names as elsewhere.
void contract_cases(const std::string& only, Tally& tally);

}  // namespace annulus::testing
