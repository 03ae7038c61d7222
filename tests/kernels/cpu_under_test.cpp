#include "tests/kernels/under_test.h"

namespace annulus::testing {

std::vector<const attn::Kernel*> kernels_under_test() { return attn::kernels("cpu"); }

}  // namespace annulus::testing
