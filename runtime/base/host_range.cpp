#include "runtime/base/host_range.h"

#include <nvtx3/nvToolsExt.h>

namespace annulus {
namespace {

/// Null where no tool listens. One for the process, as NVTX itself is.
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t kDomain = nvtxDomainCreateA("annulus");
  return kDomain;
}

}  // namespace

bool profiler_listens() { return domain() != nullptr; }

RangeName range_name(const std::string& text) {
  return domain() == nullptr ? nullptr : nvtxDomainRegisterStringA(domain(), text.c_str());
}

namespace detail {

void push_range(RangeName name) noexcept {
  nvtxEventAttributes_t what{};
  what.version = NVTX_VERSION;
  what.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  what.messageType = NVTX_MESSAGE_TYPE_REGISTERED;
  what.message.registered = static_cast<nvtxStringHandle_t>(name);
  (void)nvtxDomainRangePushEx(domain(), &what);
}

void pop_range() noexcept { (void)nvtxDomainRangePop(domain()); }

}  // namespace detail
}  // namespace annulus
