// Where CUPTI's headers or CUDA were not there at build time.
#include <annulus/counters.h>

namespace annulus {

struct HardwareCounters::Impl {
  std::string unavailable =
      "built without CUDA or without CUPTI's headers: configure with ANNULUS_WITH_CUDA=ON";
  std::string source;
  HardwareReadings readings = [this] {
    HardwareReadings none;
    none.unavailable = unavailable;
    return none;
  }();
};

HardwareCounters::HardwareCounters(int /*device*/, DType /*dtype*/, double /*timeout_s*/)
    : impl_(std::make_unique<Impl>()) {}
HardwareCounters::HardwareCounters(HardwareCounters&&) noexcept = default;
HardwareCounters& HardwareCounters::operator=(HardwareCounters&&) noexcept = default;
HardwareCounters::~HardwareCounters() = default;

const std::string& HardwareCounters::unavailable() const { return impl_->unavailable; }
const std::string& HardwareCounters::source() const { return impl_->source; }
int HardwareCounters::passes() const { return 1; }
void HardwareCounters::begin() {}
void HardwareCounters::end(void* /*stream*/) {}
const HardwareReadings& HardwareCounters::readings() const { return impl_->readings; }

}  // namespace annulus
