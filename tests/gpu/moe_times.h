#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>

namespace annulus::testing {

/// Prints a table: router, placement, rows, gates, products. Throws DeviceError.
void time_moe();

/// Of expert products alone; Unsupported where there is no cuBLAS.
void time_products();

/// Median over rounds of what one of `calls` back-to-back calls takes.
double microseconds(cudaStream_t stream, int calls, const std::function<void()>& fn);

/// One line: what, microseconds, a rate, what was predicted.
void print_time(const char* what, double us, double amount, const char* unit,
                const char* predicted);

}  // namespace annulus::testing
