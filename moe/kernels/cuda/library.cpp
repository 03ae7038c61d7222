#include "moe/kernels/cuda/library.h"

#include <annulus/error.h>

#include <dlfcn.h>
#include <fmt/format.h>

#include <string>

namespace annulus::moe::cuda {
namespace {

struct Opened {
  Library library;
  std::string error;
};

/// What the loader knows (a program may hold cuBLAS already), then where toolkits lie.
void* open_any() {
  for (const std::string folder : {"", ANNULUS_CUBLAS_FOLDER "/", "/usr/local/cuda/lib64/"}) {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
      if (void* handle = dlopen((folder + name).c_str(), RTLD_NOW | RTLD_LOCAL)) return handle;
    }
  }
  return nullptr;
}

Opened open() {
  Opened opened;
  void* handle = open_any();
  if (handle == nullptr) {
    opened.error =
        fmt::format("cuBLAS 12 or 13 cannot be opened (set LD_LIBRARY_PATH): {}", dlerror());
    return opened;
  }
  const auto find = [&]<typename Function>(Function& function, const char* name, bool needed) {
    function = reinterpret_cast<Function>(dlsym(handle, name));
    if (function == nullptr && needed) opened.error = fmt::format("cuBLAS has no {}", name);
  };
  Library& l = opened.library;
  find(l.create, "cublasCreate_v2", true);
  find(l.destroy, "cublasDestroy_v2", true);
  find(l.set_stream, "cublasSetStream_v2", true);
  find(l.set_workspace, "cublasSetWorkspace_v2", true);
  find(l.status_string, "cublasGetStatusString", true);
  find(l.gemm, "cublasGemmEx", true);
  find(l.grouped_gemm, "cublasGemmGroupedBatchedEx", false);
  return opened;
}

}  // namespace

const Library& Library::get() {
  static const Opened opened = open();
  if (!opened.error.empty()) throw Unsupported(opened.error);
  return opened.library;
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(fmt::format("{}: cuBLAS says: {}", what, Library::get().status_string(status)));
}

}  // namespace annulus::moe::cuda
