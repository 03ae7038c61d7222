#pragma once

#include "launch/io/tensor_file.h"

#include <string>

namespace annulus::launch {

/// NumPy's format, versions 1.0 to 3.0: magic, header length, a Python dict {'descr': '<f4',
/// 'fortran_order': False, 'shape': (2, 3), }, data. Reads f32 and f16 in C order; throws
/// UsageError that names what else it found (big endian, Fortran order, another dtype, cut off,
/// bytes behind).
StoredTensor read_npy_header(const InputFile& file);

/// Everything before the data; throws UsageError for a dtype that .npy has not (bf16).
std::string npy_header(const StoredTensor& tensor);

}  // namespace annulus::launch
