#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::testing {

/// GPU 1, which writes into GPU 0's memory: copies by its engines, flags by its stream, as a sender
/// of another rank does. GPU 0 stays current.
class SecondGpu {
 public:
  /// Is there one that reaches GPU 0's memory?
  static bool there();

  SecondGpu();
  ~SecondGpu();
  SecondGpu(const SecondGpu&) = delete;
  SecondGpu& operator=(const SecondGpu&) = delete;

  /// Takes a copy of `bytes` of GPU 0's memory, which put_back() writes where they came from.
  void keep(std::byte* from, std::size_t bytes);
  /// Enqueued on GPU 1: all that was kept, then `value` at `flag`, a word of GPU 0's memory.
  void put_back(std::uint32_t* flag, std::uint32_t value) const;
  void wait() const;

 private:
  struct Kept {
    std::byte* home;
    std::byte* here;
    std::size_t bytes;
  };
  cudaStream_t stream_ = nullptr;
  std::vector<Kept> kept_;
};

}  // namespace annulus::testing
