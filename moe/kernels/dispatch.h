#pragma once

#include "moe/kernels/params.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

namespace annulus::moe {

/// The arithmetic of one back end. Results do not depend on the number of threads. On a GPU calls
/// enqueue on the context's stream, and pointers are to memory of the device; products come from a
/// library, which chooses the order of its sums: the same for the same shapes, not for a row alone.
struct Kernel {
  std::string_view name;
  std::string_view backend;
  /// Any number of products, none of which reads what another one writes.
  void (*multiply)(std::span<const Product> products, const LaunchContext& context) = nullptr;
  void (*activate)(const ActivateParams& params, const LaunchContext& context) = nullptr;
  /// Writes `activated`, `dhidden` and `dweights`.
  void (*activate_backward)(const ActivateParams& params, const LaunchContext& context) = nullptr;
  void (*sum)(const SumParams& params, const LaunchContext& context) = nullptr;
  void (*copy)(const CopyParams& params, const LaunchContext& context) = nullptr;
  std::int64_t (*workspace_bytes)(int threads) = nullptr;
  /// Makes what LaunchContext::library is; null: nothing is wanted. Allocates, throws Unsupported.
  std::shared_ptr<void> (*open)() = nullptr;
};

/// Throws Unsupported that says what is built, for a back end that has no MoE kernels.
const Kernel& kernel(std::string_view backend);

/// Names of the back ends that have MoE kernels.
std::vector<std::string_view> kernel_backends();

}  // namespace annulus::moe
