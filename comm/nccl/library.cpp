#include "comm/nccl/library.h"

#include <annulus/error.h>

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace annulus::comm::nccl {
namespace {

struct Opened {
  Library library;
  std::string error;
};

Opened open() {
  Opened opened;
  void* handle = dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    opened.error = fmt::format("NCCL cannot be opened: {}", dlerror());
    return opened;
  }
  const auto find = [&]<typename Function>(Function& function, const char* name) {
    function = reinterpret_cast<Function>(dlsym(handle, name));
    if (function == nullptr) opened.error = fmt::format("NCCL has no {}: it is too old", name);
  };
  Library& l = opened.library;
  find(l.get_unique_id, "ncclGetUniqueId");
  find(l.init_rank, "ncclCommInitRankConfig");
  find(l.destroy, "ncclCommDestroy");
  find(l.abort, "ncclCommAbort");
  find(l.split, "ncclCommSplit");
  find(l.async_error, "ncclCommGetAsyncError");
  find(l.count, "ncclCommCount");
  find(l.user_rank, "ncclCommUserRank");
  find(l.device, "ncclCommCuDevice");
  find(l.attach, "ncclCommRegister");
  find(l.detach, "ncclCommDeregister");
  find(l.group_start, "ncclGroupStart");
  find(l.group_end, "ncclGroupEnd");
  find(l.send, "ncclSend");
  find(l.receive, "ncclRecv");
  find(l.all_gather, "ncclAllGather");
  find(l.error_string, "ncclGetErrorString");
  find(l.last_error, "ncclGetLastError");
  return opened;
}

}  // namespace

const Library& Library::get() {
  static const Opened opened = open();
  if (!opened.error.empty()) throw Unsupported(opened.error);
  return opened.library;
}

void check(ncclResult_t code, const char* what, ncclComm_t communicator) {
  if (code == ncclSuccess) return;
  const Library& l = Library::get();
  const char* more = l.last_error(communicator);
  const bool said = more != nullptr && *more != 0;
  throw CommError(fmt::format("{}: NCCL says: {}{}{}", what, l.error_string(code),
                              said ? "; last error: " : "", said ? more : ""));
}

}  // namespace annulus::comm::nccl
