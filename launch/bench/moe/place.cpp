#include "launch/bench/moe/place.h"

#include <utility>

namespace annulus::launch {

MoePlace::MoePlace(int device) : device_(device) {
  if (device >= 0) stream_ = DeviceStream(device);
}

void MoePlace::put(std::span<std::byte> host, bool result) {
  if (device_ < 0 || host.empty()) return;
  Copy copy{.host = host,
            .bytes = DeviceBytes(static_cast<std::int64_t>(host.size()), device_),
            .result = result};
  if (!result) copy.bytes.upload(host);
  copies_.insert_or_assign(host.data(), std::move(copy));
}

void MoePlace::put(const Tensor& host, bool result) {
  const TensorView& v = host.view();
  if (v.data == nullptr) return;
  put({static_cast<std::byte*>(v.data), static_cast<std::size_t>(v.elements() * size_of(v.dtype))},
      result);
}

void* MoePlace::where(void* host) const {
  const auto copy = copies_.find(host);
  return copy == copies_.end() ? host : copy->second.bytes.data();
}

TensorView MoePlace::view(TensorView host) const {
  host.data = where(host.data);
  return host;
}

void MoePlace::fetch() const {
  for (const auto& [host, copy] : copies_) {
    if (copy.result) copy.bytes.download(copy.host);
  }
}

}  // namespace annulus::launch
