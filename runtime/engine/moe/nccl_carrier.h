#pragma once

#include "comm/nccl/nccl_communicator.h"
#include "moe/exchange_plan.h"
#include "moe/row_carrier.h"

#include <vector>

namespace annulus::moe {

/// Rows between GPUs by NCCL: grouped sends and receives, one launch an exchange. The host waits
/// for each with the mesh's deadline, so that a rank that is gone leaves no kernel behind.
class NcclCarrier final : public RowCarrier {
 public:
  /// Collective over the mesh, one GPU for each rank. Throws Timeout, CommError.
  NcclCarrier(comm::Communicator& communicator, const Group& group, int device);

  void exchange(const char* phase, std::span<const RowMessage> messages, void* stream) override;

  double waited_s() const { return waited_s_; }
  void clear_waited() { waited_s_ = 0; }

 private:
  void copy_own(std::span<const RowMessage> messages, cudaStream_t stream);
  void wait(const char* phase, cudaStream_t stream);

  comm::Communicator& communicator_;
  Group group_;
  comm::nccl::NcclCommunicator nccl_;
  std::vector<comm::nccl::Message> others_;
  double waited_s_ = 0;
};

}  // namespace annulus::moe
