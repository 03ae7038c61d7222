// Where NCCL's header was not found.

#include "comm/nccl/nccl_communicator.h"

#include <annulus/error.h>

namespace annulus::comm::nccl {

struct NcclCommunicator::State {};

bool built() { return false; }

std::string why_not() { return "NCCL is not built in: nccl.h was not found when configured"; }

void pretend_host(const std::string&) {}

NcclCommunicator::NcclCommunicator(Communicator& control, int device, void* given,
                                   const std::vector<int>&)
    : control_(control), device_(device), given_(given != nullptr) {
  throw Unsupported(why_not());
}
NcclCommunicator::~NcclCommunicator() = default;
void NcclCommunicator::exchange(std::span<const Message>, cudaStream_t) const {}
void* NcclCommunicator::attach(std::span<std::byte>) const noexcept { return nullptr; }
void NcclCommunicator::detach(void*) const noexcept {}
void* NcclCommunicator::handle() const { return nullptr; }
void NcclCommunicator::abort() noexcept {}
void NcclCommunicator::wait_for_abort() noexcept {}

}  // namespace annulus::comm::nccl
