#pragma once

#include <utility>

namespace annulus {

/// Owns a handle of a C library. Traits give `Type`, `static Type null()` and
/// `static void close(Type) noexcept`.
template <class Traits>
class UniqueHandle {
 public:
  using Type = typename Traits::Type;

  UniqueHandle() = default;
  explicit UniqueHandle(Type value) noexcept : value_(value) {}
  UniqueHandle(UniqueHandle&& other) noexcept : value_(other.release()) {}
  UniqueHandle& operator=(UniqueHandle&& other) noexcept {
    reset(other.release());
    return *this;
  }
  UniqueHandle(const UniqueHandle&) = delete;
  UniqueHandle& operator=(const UniqueHandle&) = delete;
  ~UniqueHandle() { reset(); }

  Type get() const noexcept { return value_; }
  explicit operator bool() const noexcept { return value_ != Traits::null(); }

  /// For C functions that fill a handle in.
  Type* out() noexcept {
    reset();
    return &value_;
  }
  Type release() noexcept { return std::exchange(value_, Traits::null()); }
  void reset(Type value = Traits::null()) noexcept {
    const Type old = std::exchange(value_, value);
    if (old != Traits::null() && old != value) Traits::close(old);
  }

 private:
  Type value_ = Traits::null();
};

}  // namespace annulus
