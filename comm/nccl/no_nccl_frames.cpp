// Where CUDA or NCCL's header was not found.

#include "comm/communicator.h"

#include <annulus/error.h>

namespace annulus::comm {

std::unique_ptr<Communicator> make_nccl_communicator(void* /*given*/, double /*timeout_s*/) {
  throw Unsupported(
      "a mesh from an ncclComm_t: NCCL is not built in: the CUDA Toolkit or nccl.h was not found "
      "when configured");
}

}  // namespace annulus::comm
