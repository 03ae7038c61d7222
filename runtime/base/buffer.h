#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace annulus {

/// Aligned bytes, not initialised: pages that nobody writes cost no memory.
class Buffer {
 public:
  static constexpr std::size_t kAlign = 256;

  Buffer() = default;
  explicit Buffer(std::int64_t bytes) : bytes_(bytes) {
    if (bytes == 0) return;
    const std::size_t rounded = (static_cast<std::size_t>(bytes) + kAlign - 1) / kAlign * kAlign;
    data_.reset(static_cast<std::byte*>(std::aligned_alloc(kAlign, rounded)));
    if (!data_) throw std::bad_alloc();
  }

  std::byte* data() const { return data_.get(); }
  std::int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* p) const { std::free(p); }
  };
  std::unique_ptr<std::byte, Free> data_;
  std::int64_t bytes_ = 0;
};

}  // namespace annulus
