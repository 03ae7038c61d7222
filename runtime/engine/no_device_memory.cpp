// Where CUDA is not built.

#include <annulus/device_memory.h>

#include <annulus/error.h>

namespace annulus {
namespace {

[[noreturn]] void refuse() { throw Unsupported("back end cuda is not built; built: cpu"); }

}  // namespace

DeviceBytes::DeviceBytes(std::int64_t, int) { refuse(); }
DeviceBytes::DeviceBytes(DeviceBytes&&) noexcept = default;
DeviceBytes& DeviceBytes::operator=(DeviceBytes&&) noexcept = default;
DeviceBytes::~DeviceBytes() = default;
void DeviceBytes::upload(std::span<const std::byte>) { refuse(); }
void DeviceBytes::download(std::span<std::byte>) const { refuse(); }
DeviceStream::DeviceStream(int) { refuse(); }
DeviceStream::DeviceStream(DeviceStream&&) noexcept = default;
DeviceStream& DeviceStream::operator=(DeviceStream&&) noexcept = default;
DeviceStream::~DeviceStream() = default;
void DeviceStream::hold() const { refuse(); }
void DeviceStream::release() const { refuse(); }
DeviceTimer::DeviceTimer(int) { refuse(); }
DeviceTimer::DeviceTimer(DeviceTimer&&) noexcept = default;
DeviceTimer& DeviceTimer::operator=(DeviceTimer&&) noexcept = default;
DeviceTimer::~DeviceTimer() = default;
void DeviceTimer::begin(const DeviceStream&) const { refuse(); }
void DeviceTimer::end(const DeviceStream&) const { refuse(); }
double DeviceTimer::seconds() const { refuse(); }
DeviceGraph::DeviceGraph(const DeviceStream&, const std::function<void()>&) { refuse(); }
DeviceGraph::~DeviceGraph() = default;
void DeviceGraph::launch(const DeviceStream&) const { refuse(); }
int device_count() { return 0; }
std::int64_t device_memory_used(int) { refuse(); }
std::string device_name(int) { refuse(); }
DeviceSize device_size(int) { refuse(); }

}  // namespace annulus
