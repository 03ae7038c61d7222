#pragma once

#include "runtime/base/device_buffer.h"

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

namespace annulus::testing {

/// Prints a table: router, placement, rows, gates, products, layers. Throws DeviceError.
void time_moe();

/// Its last parts, of products and of whole layers; Unsupported where there is no cuBLAS.
void time_products();
void time_layer();

/// Losses, capacity and noise.
void time_balance();

/// Dispatch and combine between GPUs of this host, at most so many, beside NCCL. Throws DeviceError
/// where rows went astray.
void time_peers(int most);

inline constexpr std::int64_t kTokens = 4096;  ///< of a GPU

template <typename T>
T* data_of(const DeviceBuffer& buffer) {
  return reinterpret_cast<T*>(buffer.data());
}

/// Normal values, for what a GPU sustains depends on them; a block of them again and again.
DeviceBuffer random_bf16(std::int64_t count);

/// Median over rounds of what one of `calls` back-to-back calls takes.
double microseconds(cudaStream_t stream, int calls, const std::function<void()>& fn);

/// One line: what, microseconds, a rate, what was predicted.
void print_time(const char* what, double us, double amount, const char* unit,
                const char* predicted);

}  // namespace annulus::testing
