#pragma once

#include <nccl.h>

namespace annulus::comm::nccl {

/// Functions of libnccl.so.2, opened at first use, so that programs start where it is not.
struct Library {
  /// Throws Unsupported, each time with the same text.
  static const Library& get();

  decltype(&ncclGetUniqueId) get_unique_id = nullptr;
  decltype(&ncclCommInitRankConfig) init_rank = nullptr;
  decltype(&ncclCommDestroy) destroy = nullptr;
  decltype(&ncclCommAbort) abort = nullptr;
  decltype(&ncclCommSplit) split = nullptr;
  decltype(&ncclCommGetAsyncError) async_error = nullptr;
  decltype(&ncclCommCount) count = nullptr;
  decltype(&ncclCommUserRank) user_rank = nullptr;
  decltype(&ncclCommCuDevice) device = nullptr;
  decltype(&ncclCommRegister) attach = nullptr;
  decltype(&ncclCommDeregister) detach = nullptr;
  decltype(&ncclGroupStart) group_start = nullptr;
  decltype(&ncclGroupEnd) group_end = nullptr;
  decltype(&ncclSend) send = nullptr;
  decltype(&ncclRecv) receive = nullptr;
  decltype(&ncclAllGather) all_gather = nullptr;
  decltype(&ncclGetErrorString) error_string = nullptr;
  decltype(&ncclGetLastError) last_error = nullptr;
};

/// Throws CommError with NCCL's words.
void check(ncclResult_t code, const char* what, ncclComm_t communicator = nullptr);

}  // namespace annulus::comm::nccl
