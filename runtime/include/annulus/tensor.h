#pragma once

#include <annulus/export.h>

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

namespace annulus {

/// A cudaStream_t as void*; ignored by CPU back ends, where calls return when the work is done.
using Stream = void*;

/// Element types. Inputs and outputs are f32, f16 or bf16; f64 belongs to the reference.
enum class DType : std::uint8_t { f32, f16, bf16, f64 };

ANNULUS_API std::int64_t size_of(DType dtype);
ANNULUS_API std::string_view name_of(DType dtype);

/// A borrowed tensor: pointer, element type, shape, and strides in elements. Owns nothing.
/// Attention tensors are [batch, seq_local, heads, dim] with a last stride of 1; lse is
/// [batch, heads, seq_local] f32.
template <typename Pointer>
struct BasicTensorView {
  static constexpr int kMaxRank = 5;

  Pointer data = nullptr;
  DType dtype = DType::f32;
  int rank = 0;
  std::array<std::int64_t, kMaxRank> shape{};
  std::array<std::int64_t, kMaxRank> strides{};

  BasicTensorView() = default;

  /// A compact row-major view.
  BasicTensorView(Pointer data_in, DType dtype_in, std::initializer_list<std::int64_t> shape_in)
      : data(data_in), dtype(dtype_in) {
    for (const std::int64_t n : shape_in) shape[static_cast<std::size_t>(rank++)] = n;
    std::int64_t stride = 1;
    for (int d = rank - 1; d >= 0; --d) {
      strides[static_cast<std::size_t>(d)] = stride;
      stride *= shape[static_cast<std::size_t>(d)];
    }
  }

  /// A mutable view is a constant view too.
  operator BasicTensorView<const void*>() const {
    BasicTensorView<const void*> view;
    view.data = data;
    view.dtype = dtype;
    view.rank = rank;
    view.shape = shape;
    view.strides = strides;
    return view;
  }

  std::int64_t elements() const {
    std::int64_t n = 1;
    for (int d = 0; d < rank; ++d) n *= shape[static_cast<std::size_t>(d)];
    return n;
  }
};

using TensorView = BasicTensorView<void*>;
using ConstTensorView = BasicTensorView<const void*>;

/// "f32[1,613,8,128]", for messages.
ANNULUS_API std::string describe(const ConstTensorView& view);

}  // namespace annulus
