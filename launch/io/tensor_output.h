#pragma once

#include "launch/io/tensor_file.h"

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

namespace annulus::launch {

/// A tensor that will be written.
struct OutputTensor {
  TensorPath path;
  std::string where;    ///< "--out", for messages
  StoredTensor tensor;  ///< dtype and shape; the offset is found here
};

/// Tensors written in parts, each file beside its place and renamed by commit(). Tensors that name
/// one .safetensors file share it, in the order given; a file that was there is replaced whole.
class TensorOutputs {
 public:
  /// Opens the files and takes their space. Throws UsageError "WHERE: ..." for two outputs of one
  /// name, bf16 in .npy, and what cannot be written.
  explicit TensorOutputs(std::vector<OutputTensor> outputs);
  TensorOutputs(const TensorOutputs&) = delete;
  TensorOutputs& operator=(const TensorOutputs&) = delete;
  ~TensorOutputs();  ///< removes what was not committed

  /// Bytes [begin, ...) of output `index`. Throws std::runtime_error (disk full).
  void write(std::size_t index, std::int64_t begin, std::span<const std::byte> data);
  void commit();

 private:
  struct File {
    std::filesystem::path place;
    std::filesystem::path beside;
    int handle = -1;
  };

  void open_file(std::size_t first);
  void close_all() noexcept;

  std::vector<OutputTensor> outputs_;
  std::vector<File> files_;
  std::vector<std::size_t> file_of_;  ///< by output
};

}  // namespace annulus::launch
