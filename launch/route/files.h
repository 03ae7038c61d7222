#pragma once

#include "launch/options/settings.h"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {

/// Numbers of a file, as f32.
struct Matrix {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

/// The tensor that `key` names: .npy of f32 or f16, or .safetensors. Throws UsageError unless it
/// has `dims` dimensions.
Matrix read_matrix(const Settings& settings, std::string_view key, std::size_t dims);

/// A whole .npy of [tokens, k], ready to be written.
std::string npy_of(std::span<const std::int32_t> values, std::int64_t tokens, std::int64_t k);
std::string npy_of(std::span<const float> values, std::int64_t tokens, std::int64_t k);

}  // namespace annulus::launch
