#pragma once

#include "launch/io/tensor_file.h"
#include "launch/options/settings.h"

#include <cstdint>
#include <optional>

namespace annulus::launch {

/// What the files hold.
struct AttendTensors {
  StoredTensor q, k, v;
  std::optional<StoredTensor> dout;
};

/// The sizes of the problem, as plain numbers: rank 0 reads them off the files and tells the
/// others.
struct AttendShape {
  std::int64_t batch = 1, seq = 0, seq_kv = 0, heads = 1, heads_kv = 1, head_dim = 0,
               head_dim_v = 0;
  DType dtype = DType::f32;
};

/// From [batch, seq, heads, dim] (or [seq, heads, dim] of one sequence) the shape is read; keys
/// that are given must agree. A file of another rank is taken as a flat array and needs the keys.
/// Throws UsageError; for a wrong number of elements it names the key that was probably meant.
AttendShape attend_shape(const Settings& settings, const AttendTensors& tensors);

/// `settings` with the shape filled in, so that problem_of() serves.
Settings with_shape(const Settings& settings, const AttendShape& shape);

}  // namespace annulus::launch
