#pragma once

#include <annulus/tensor.h>

#include <cstdint>

namespace annulus::launch {

/// One element of a tensor's memory, rounded to nearest even.
void store_element(void* data, DType dtype, std::int64_t index, double value);
double load_element(const void* data, DType dtype, std::int64_t index);
/// `value` as `dtype` holds it.
double rounded(DType dtype, double value);
/// Half the distance from 1 to the next number.
double unit_roundoff(DType dtype);

}  // namespace annulus::launch
