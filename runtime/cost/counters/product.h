#pragma once

#include "runtime/base/handle.h"

#include <annulus/tensor.h>

#include <cstdint>
#include <string>

namespace annulus::cost {

constexpr std::int64_t kProductSide = 1024;
/// 2 a multiply-add.
constexpr std::int64_t kProductFlops = 2 * kProductSide * kProductSide * kProductSide;

struct DeviceMemoryTraits {
  using Type = void*;
  static Type null() { return nullptr; }
  static void close(Type memory) noexcept;
};

/// A 1024 x 1024 x 1024 product of matrices of bf16 or f16 by mma.sync, with nothing computed
/// twice: what counters are held against. Owns 8 MiB of the current device.
class KnownProduct {
 public:
  /// Throws DeviceError.
  explicit KnownProduct(DType dtype);

  /// Enqueues it on the default stream.
  void run();
  /// Empty, or what is wrong with the result, so that a launch that did nothing is found.
  std::string check() const;

 private:
  DType dtype_;
  UniqueHandle<DeviceMemoryTraits> a_, b_, c_;
};

}  // namespace annulus::cost
