// A tool that NVTX loads (NVTX_INJECTION64_PATH), as Nsight Systems is one: it prints the ranges
// that the process pushes, a line each, to the file that NVTX_LISTENER_LOG names.

#include <nvtx3/nvToolsExt.h>

#include <cstdio>
#include <cstdlib>
#include <deque>
#include <mutex>
#include <string>

namespace {

std::mutex lock;
std::deque<std::string> names;  // stays put: handles point into it
std::FILE* log = nullptr;
thread_local int depth = 0;

nvtxDomainHandle_t create_domain(const char* /*name*/) {
  return reinterpret_cast<nvtxDomainHandle_t>(&names);
}

nvtxStringHandle_t register_string(nvtxDomainHandle_t /*domain*/, const char* text) {
  const std::scoped_lock held(lock);
  return reinterpret_cast<nvtxStringHandle_t>(&names.emplace_back(text));
}

int push(nvtxDomainHandle_t /*domain*/, const nvtxEventAttributes_t* what) {
  const std::scoped_lock held(lock);
  std::fprintf(log, "%d %s\n", depth,
               reinterpret_cast<const std::string*>(what->message.registered)->c_str());
  std::fflush(log);
  return depth++;
}

int pop(nvtxDomainHandle_t /*domain*/) { return --depth; }

template <typename Function>
void set(NvtxFunctionTable table, unsigned size, unsigned id, Function function) {
  if (id < size) *table[id] = reinterpret_cast<NvtxFunctionPointer>(function);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) int InitializeInjectionNvtx2(
    NvtxGetExportTableFunc_t get_table) {
  const char* path = std::getenv("NVTX_LISTENER_LOG");
  log = path == nullptr ? nullptr : std::fopen(path, "a");
  const auto* callbacks =
      static_cast<const NvtxExportTableCallbacks*>(get_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned size = 0;
  if (log == nullptr || callbacks == nullptr ||
      callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE2, &table, &size) == 0) {
    return 0;
  }
  set(table, size, NVTX_CBID_CORE2_DomainCreateA, create_domain);
  set(table, size, NVTX_CBID_CORE2_DomainRegisterStringA, register_string);
  set(table, size, NVTX_CBID_CORE2_DomainRangePushEx, push);
  set(table, size, NVTX_CBID_CORE2_DomainRangePop, pop);
  return 1;
}
