#pragma once

#include <annulus/tensor.h>

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::launch {

/// A tensor in a file: dense, C order, little endian.
struct StoredTensor {
  DType dtype = DType::f32;
  std::vector<std::int64_t> shape;
  std::int64_t offset = 0;  ///< of its first byte in the file

  std::int64_t elements() const;
  std::int64_t bytes() const { return elements() * size_of(dtype); }
};

/// FILE.npy, FILE.safetensors or FILE.safetensors:NAME.
struct TensorPath {
  std::filesystem::path file;
  std::string name;  ///< of the tensor in a .safetensors; empty for .npy

  bool is_npy() const { return name.empty(); }
  bool operator==(const TensorPath&) const = default;
};

/// `preset` is the name where none is given. Throws UsageError "WHERE: ..." for another ending.
TensorPath parse_tensor_path(const std::filesystem::path& path, std::string_view preset,
                             const std::string& where);

/// An open file that is read at places. Throws UsageError "WHERE: 'FILE' ..." where it is missing
/// or no regular file, std::runtime_error where reading fails.
class InputFile {
 public:
  InputFile(std::filesystem::path path, std::string where);
  InputFile(InputFile&& other) noexcept;
  InputFile& operator=(InputFile&&) = delete;
  ~InputFile();

  std::int64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  /// All of `into`, from `offset` on.
  void read(std::int64_t offset, std::span<std::byte> into) const;
  /// Throws UsageError "WHERE: 'FILE' WHY".
  [[noreturn]] void refuse(std::string_view why) const;

 private:
  std::filesystem::path path_;
  std::string where_;
  int handle_ = -1;
  std::int64_t size_ = 0;
};

/// A tensor that is read in parts.
class TensorReader {
 public:
  /// Throws UsageError for whatever is wrong with the file, before any data is read.
  TensorReader(const TensorPath& path, const std::string& where);

  const StoredTensor& tensor() const { return tensor_; }
  const InputFile& file() const { return file_; }
  /// Bytes [begin, begin + into.size()) of the tensor.
  void read(std::int64_t begin, std::span<std::byte> into) const;

 private:
  InputFile file_;
  StoredTensor tensor_;
};

/// dtype and dims multiplied with overflow as error: false where it passes 2^62 bytes.
bool countable(const StoredTensor& tensor);

}  // namespace annulus::launch
