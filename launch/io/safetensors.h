#pragma once

#include "launch/io/tensor_file.h"

#include <string>
#include <utility>
#include <vector>

namespace annulus::launch {

/// Hugging Face's format: the header's length (8 bytes, little endian), a JSON object {NAME:
/// {"dtype", "shape", "data_offsets"}} and the data. Strict: every tensor of the file is checked
/// (known dtype, size = shape, no gap, no overlap, nothing behind), whichever is wanted. Reads F32,
/// F16 and BF16. Throws UsageError.
StoredTensor read_safetensors_header(const InputFile& file, const std::string& name);

/// Everything before the data; sets the tensors' offsets, in their order.
std::string safetensors_header(std::vector<std::pair<std::string, StoredTensor>>& tensors);

}  // namespace annulus::launch
