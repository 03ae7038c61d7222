#pragma once

#include <annulus/annulus.h>
#include <annulus/annulus_c.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>

// What the files of the C interface share: the bodies of its handles, and how exceptions, structs
// and enumerations cross.

struct annulus_mesh {
  std::shared_ptr<annulus::Mesh> mesh;
};

struct annulus_mask {
  annulus::Mask mask;
};

struct annulus_layout {
  annulus::Layout layout;
};

// Members stand in order of need, so that the last handle to go takes them down in the right one.
struct annulus_session {
  std::shared_ptr<annulus::Mesh> mesh;
  std::shared_ptr<annulus::Session> session;
};

struct annulus_attention {
  std::shared_ptr<annulus::Mesh> mesh;
  std::shared_ptr<annulus::Session> session;
  annulus::Attention attention;
};

struct annulus_plan {
  annulus::Plan plan;
};

struct annulus_local_kernel {
  annulus::LocalKernel kernel;
};

namespace annulus::c_abi {

/// Writes the exception in flight to `error`, if there is one, and returns its status.
annulus_status report(annulus_error* error) noexcept;

template <typename Body>
annulus_status guarded(annulus_error* error, const Body& body) noexcept {
  try {
    body();
    return ANNULUS_OK;
  } catch (...) {
    return report(error);
  }
}

/// guarded() for a call that gives a handle away: NULL unless it succeeds.
template <typename Handle, typename Body>
annulus_status made(Handle** handle, annulus_error* error, const Body& body) noexcept {
  if (handle != nullptr) *handle = nullptr;
  return guarded(error, [&] {
    if (handle == nullptr) throw InvalidArgument("the place for the result is NULL");
    *handle = new Handle{body()};
  });
}

template <typename T>
T& need(T* pointer, const char* name) {
  if (pointer == nullptr) throw InvalidArgument(std::string(name) + " is NULL");
  return *pointer;
}

/// `size` bytes of a struct of the caller's time, which must hold at least its size field.
void check_size(const void* given, std::size_t size, std::size_t known, const char* name);

/// A struct of this library's time: what the caller knows of it over the defaults of `init`.
template <typename T>
T taken(const T* given, void (*init)(T*, std::size_t), const char* name) {
  T full;
  init(&full, sizeof full);
  if (given == nullptr) return full;
  check_size(given, given->size, sizeof full, name);
  std::memcpy(&full, given, std::min(given->size, sizeof full));
  full.size = sizeof full;
  return full;
}

/// Fills as much of the caller's struct as it has room for; its size field stays.
template <typename T>
void give(T values, T* to, const char* name) {
  const std::size_t size = need(to, name).size;
  if (size < sizeof size) throw InvalidArgument(std::string(name) + ".size is not set");
  values.size = size;
  std::memcpy(to, &values, std::min(size, sizeof values));
}

/// Throws InvalidArgument unless 0 <= value < count.
template <typename Enum>
Enum enumerated(std::int32_t value, std::int32_t count, const char* name) {
  if (value < 0 || value >= count) {
    throw InvalidArgument(std::string(name) + " " + std::to_string(value) +
                          " is not allowed; allowed: 0 to " + std::to_string(count - 1));
  }
  return static_cast<Enum>(value);
}

Algorithm algorithm_of(std::int32_t value);
BackwardMoves backward_moves_of(std::int32_t value);
Pass pass_of(std::int32_t value);
Problem problem_of(const annulus_problem* given);
Layout layout_of(const annulus_layout* given);  ///< NULL: zigzag
TensorView view_of(const annulus_tensor* tensor, const char* name);
char* text_of(const std::string& text);

/// guarded() for a call that gives a text away.
template <typename Body>
annulus_status told(char** text, annulus_error* error, const Body& body) noexcept {
  if (text != nullptr) *text = nullptr;
  return guarded(error, [&] { need(text, "text") = text_of(body()); });
}

}  // namespace annulus::c_abi
