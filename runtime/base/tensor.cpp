#include <annulus/tensor.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <span>

namespace annulus {

std::int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::f16:
    case DType::bf16:
      return 2;
    case DType::f32:
      return 4;
    case DType::f64:
      return 8;
  }
  return 0;
}

std::string_view name_of(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return "f32";
    case DType::f16:
      return "f16";
    case DType::bf16:
      return "bf16";
    case DType::f64:
      return "f64";
  }
  return "?";
}

std::string describe(const ConstTensorView& view) {
  const std::span<const std::int64_t> shape(view.shape.data(), static_cast<std::size_t>(view.rank));
  return fmt::format("{}[{}]", name_of(view.dtype), fmt::join(shape, ","));
}

}  // namespace annulus
