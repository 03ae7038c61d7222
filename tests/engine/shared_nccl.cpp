#include "tests/engine/shared_nccl.h"

#include "comm/mesh.h"
#include "comm/nccl/nccl_communicator.h"

#include <vector>

namespace annulus::testing {
namespace {

/// Never freed: its mesh may be gone when the process ends.
comm::nccl::NcclCommunicator* g_shared = nullptr;

}  // namespace

void share_nccl(Mesh& mesh, int device) {
  if (mesh.world() == 1 || g_shared != nullptr) return;
  g_shared = new comm::nccl::NcclCommunicator(*mesh.impl().communicator, device, nullptr,
                                              std::vector<int>{});
}

void* shared_nccl(const Mesh& mesh) {
  return mesh.world() == 1 || g_shared == nullptr ? nullptr : g_shared->handle();
}

}  // namespace annulus::testing
