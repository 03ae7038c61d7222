#pragma once

#include "launch/bench/tensors.h"

#include <annulus/device_memory.h>

#include <cstddef>
#include <map>
#include <span>

namespace annulus::launch {

/// Where tensors of a mixture of experts are while it runs: themselves, or copies on a GPU.
class MoePlace {
 public:
  /// -1: the CPU.
  explicit MoePlace(int device);

  Stream stream() const { return stream_.get(); }

  /// From here on view() finds the copy. `result`: fetch() brings it back. `host` stays where it
  /// is, and outlives this.
  void put(std::span<std::byte> host, bool result);
  void put(const Tensor& host, bool result);

  TensorView view(TensorView host) const;
  template <typename T>
  std::span<T> view(std::span<T> host) const {
    void* data = where(host.data());
    return {static_cast<T*>(data), host.size()};
  }

  /// After the calls.
  void fetch() const;

 private:
  struct Copy {
    std::span<std::byte> host;
    DeviceBytes bytes;
    bool result = false;
  };
  void* where(void* host) const;

  int device_;
  DeviceStream stream_;
  std::map<const void*, Copy> copies_;
};

}  // namespace annulus::launch
