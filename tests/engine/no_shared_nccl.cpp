// Where CUDA is not built.

#include "tests/engine/shared_nccl.h"

namespace annulus::testing {

void share_nccl(Mesh& /*mesh*/, int /*device*/) {}
void* shared_nccl(const Mesh& /*mesh*/) { return nullptr; }

}  // namespace annulus::testing
