#pragma once

#include "moe/device.h"
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/device.h"
#include "tests/moe_layer/layer_oracle.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace annulus::testing {

/// A compact tensor in a device's memory.
class DeviceTensor {
 public:
  DeviceTensor(const moe::Device& device, DType dtype, std::vector<std::int64_t> shape)
      : device_(&device), dtype_(dtype), shape_(std::move(shape)) {
    for (const std::int64_t extent : shape_) elements_ *= extent;
    memory_ = device.allocate(std::max<std::int64_t>(1, bytes()));
  }
  DeviceTensor& fill(const double* values) {
    std::vector<std::byte> host(static_cast<std::size_t>(bytes()));
    for (std::int64_t i = 0; i < elements_; ++i) store_f64(host.data(), dtype_, i, values[i]);
    write(memory_.get(), host.data(), bytes());
    return *this;
  }
  Values values() const {
    std::vector<std::byte> host(static_cast<std::size_t>(bytes()));
    device_->read(host.data(), memory_.get(), bytes(), nullptr);
    Values out;
    for (std::int64_t i = 0; i < elements_; ++i) out.push_back(load_f64(host.data(), dtype_, i));
    return out;
  }
  TensorView view() const {
    TensorView v;
    v.data = memory_.get();
    v.dtype = dtype_;
    v.rank = static_cast<int>(shape_.size());
    std::int64_t stride = 1;
    for (std::size_t i = shape_.size(); i-- > 0; stride *= shape_[i]) {
      v.shape[i] = shape_[i];
      v.strides[i] = stride;
    }
    return v;
  }
  float* floats() const { return static_cast<float*>(memory_.get()); }

 private:
  std::int64_t bytes() const { return elements_ * size_of(dtype_); }

  const moe::Device* device_;
  DType dtype_;
  std::vector<std::int64_t> shape_;
  std::int64_t elements_ = 1;
  std::shared_ptr<void> memory_;
};

/// Weights of experts, or their gradients.
struct DeviceSet {
  DeviceSet(const moe::Device& device, DType dtype, std::int64_t experts, std::int64_t ffn,
            std::int64_t hidden)
      : gate(device, dtype, {experts, ffn, hidden}),
        up(device, dtype, {experts, ffn, hidden}),
        down(device, dtype, {experts, hidden, ffn}) {}
  /// From element `first` of each matrix on.
  void fill(const OracleExperts& from, std::int64_t first) {
    if (!from.gate.empty()) gate.fill(from.gate.data() + first);
    up.fill(from.up.data() + first);
    down.fill(from.down.data() + first);
  }
  OracleExperts values(bool gated) const {
    return {gated ? gate.values() : Values{}, up.values(), down.values()};
  }
  moe::ExpertWeights weights() const { return {gate.view(), up.view(), down.view()}; }
  moe::ExpertGradients gradients() const { return {gate.view(), up.view(), down.view()}; }
  DeviceTensor gate, up, down;
};

}  // namespace annulus::testing
