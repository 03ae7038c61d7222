#pragma once

#include "launch/io/tensor_file.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {

/// What a .npy says of its data, whatever the dtype.
struct NpyArray {
  std::string descr;  ///< as NumPy writes it: '<f4', '|b1'
  bool fortran = false;
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  ///< of the data in the file
};

/// NumPy's format, versions 1.0 to 3.0: magic, header length, a Python dict {'descr': '<f4',
/// 'fortran_order': False, 'shape': (2, 3), }, data. Throws UsageError for anything else.
NpyArray read_npy_array(const InputFile& file);

/// Throws UsageError unless the data are in C order and `bytes` long to the end of the file.
void check_npy_data(const InputFile& file, const NpyArray& array, std::int64_t bytes,
                    std::string_view dtype);

/// A tensor of f32 or f16; throws UsageError that names what else it found (big endian, Fortran
/// order, another dtype, cut off, bytes behind).
StoredTensor read_npy_header(const InputFile& file);

/// Everything before the data; throws UsageError for a dtype that .npy has not (bf16).
std::string npy_header(const StoredTensor& tensor);
/// The same for any dtype that NumPy writes as `descr`.
std::string npy_header(std::string_view descr, const std::vector<std::int64_t>& shape);

}  // namespace annulus::launch
