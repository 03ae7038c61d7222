#include "tests/gpu/moe_time_nccl.h"

#include <annulus/error.h>

namespace annulus::testing {

NcclTimes time_nccl(const std::vector<NcclSource>& /*sources*/, std::int32_t /*experts*/,
                    std::int64_t /*k*/, std::int64_t /*row_bytes*/) {
  throw Unsupported("built without nccl.h");
}

}  // namespace annulus::testing
