#include "launch/route/files.h"

#include "launch/bench/element.h"
#include "launch/io/npy.h"
#include "launch/io/tensor_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace annulus::launch {
namespace {

template <typename T>
std::string npy_file(std::string_view descr, std::span<const T> values, std::int64_t tokens,
                     std::int64_t k) {
  std::string text = npy_header(descr, std::vector<std::int64_t>{tokens, k});
  const std::span<const std::byte> bytes = std::as_bytes(values);
  if (!bytes.empty()) text.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text;
}

}  // namespace

Matrix read_matrix(const Settings& settings, std::string_view key, std::size_t dims) {
  const TensorPath path = parse_tensor_path(settings.path(key), key, settings.where(key));
  const TensorReader reader(path, settings.where(key));
  const StoredTensor& tensor = reader.tensor();
  if (tensor.shape.size() != dims) {
    reader.file().refuse(fmt::format("has the shape [{}]; allowed: {}",
                                     fmt::join(tensor.shape, ","),
                                     dims == 2 ? "[tokens, experts]" : "[experts]"));
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(tensor.bytes()));
  reader.read(0, bytes);
  Matrix matrix{.shape = tensor.shape, .values = {}};
  matrix.values.resize(static_cast<std::size_t>(tensor.elements()));
  for (std::size_t i = 0; i < matrix.values.size(); ++i) {
    matrix.values[i] =
        static_cast<float>(load_element(bytes.data(), tensor.dtype, static_cast<std::int64_t>(i)));
  }
  return matrix;
}

std::string npy_of(std::span<const std::int32_t> values, std::int64_t tokens, std::int64_t k) {
  return npy_file("<i4", values, tokens, k);
}

std::string npy_of(std::span<const float> values, std::int64_t tokens, std::int64_t k) {
  return npy_file("<f4", values, tokens, k);
}

}  // namespace annulus::launch
