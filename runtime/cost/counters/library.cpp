#include "runtime/cost/counters/library.h"

#include <dlfcn.h>

#include <filesystem>
#include <vector>

namespace annulus::cost {
namespace {

// The structures of the headers belong to this version.
constexpr const char* kName = "libcupti.so.13";

/// The folder of the binary that holds this code: the library, or a program that it is linked into.
std::filesystem::path own_folder() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&cupti), &info) == 0 || info.dli_fname == nullptr) {
    return {};
  }
  std::error_code error;
  return std::filesystem::weakly_canonical(info.dli_fname, error).parent_path();
}

/// The loader's own search first, then the toolkit that was built with, then the usual places.
std::vector<std::string> candidates() {
  std::vector<std::string> paths{kName};
  for (const char* folder : {ANNULUS_CUPTI_FOLDER, "/usr/local/cuda/lib64", "/usr/local/cuda/lib",
                             "/usr/local/cuda/extras/CUPTI/lib64"}) {
    paths.push_back(std::string(folder) + "/" + kName);
  }
  const std::filesystem::path own = own_folder();
  for (const char* beside : {"", "lib"}) paths.push_back((own / beside / kName).string());
  return paths;
}

CuptiLibrary open_library() {
  CuptiLibrary library;
  void* handle = nullptr;
  for (const std::string& path : candidates()) {
    handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle != nullptr) break;
    const char* why = dlerror();
    if (library.missing.empty()) library.missing = why == nullptr ? kName : why;
  }
  if (handle == nullptr) {
    library.missing += "; nor in the CUDA toolkit or beside the program (set LD_LIBRARY_PATH)";
    return library;
  }
  library.missing.clear();
#define ANNULUS_FIND(name)                                                       \
  library.name = reinterpret_cast<decltype(library.name)>(dlsym(handle, #name)); \
  if (library.name == nullptr) library.missing = std::string(kName) + " lacks " #name
  ANNULUS_CUPTI_FUNCTIONS(ANNULUS_FIND);
#undef ANNULUS_FIND
  return library;
}

}  // namespace

const CuptiLibrary& cupti() {
  static const CuptiLibrary library = open_library();
  return library;
}

void check_cupti(CUptiResult status, const char* call) {
  if (status == CUPTI_SUCCESS) return;
  const char* text = nullptr;
  cupti().cuptiGetResultString(status, &text);
  std::string why = std::string(call) + ": " + (text == nullptr ? "unknown error" : text);
  if (status == CUPTI_ERROR_INSUFFICIENT_PRIVILEGES) {
    why += " (root, or the driver option NVreg_RestrictProfilingToAdminUsers=0)";
  }
  throw CuptiError{why};
}

}  // namespace annulus::cost
