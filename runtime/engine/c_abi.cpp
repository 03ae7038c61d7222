#include "runtime/engine/c_abi.h"

#include <cstdlib>
#include <exception>
#include <new>
#include <span>

namespace annulus::c_abi {
namespace {

annulus_status write(annulus_error* error, annulus_status status, const char* text) noexcept {
  if (error == nullptr) return status;
  error->status = status;
  const std::size_t length = std::min(std::strlen(text), sizeof error->text - 1);
  std::memcpy(error->text, text, length);
  error->text[length] = '\0';
  return status;
}

}  // namespace

annulus_status report(annulus_error* error) noexcept {
  try {
    throw;
  } catch (const InvalidArgument& caught) {
    return write(error, ANNULUS_INVALID_ARGUMENT, caught.what());
  } catch (const Unsupported& caught) {
    return write(error, ANNULUS_UNSUPPORTED, caught.what());
  } catch (const DeviceError& caught) {
    return write(error, ANNULUS_DEVICE_ERROR, caught.what());
  } catch (const CommError& caught) {
    return write(error, ANNULUS_COMM_ERROR, caught.what());
  } catch (const Timeout& caught) {
    return write(error, ANNULUS_TIMEOUT, caught.what());
  } catch (const std::bad_alloc&) {
    return write(error, ANNULUS_OUT_OF_MEMORY, "out of memory");
  } catch (const std::exception& caught) {
    return write(error, ANNULUS_INTERNAL_ERROR, caught.what());
  } catch (...) {
    return write(error, ANNULUS_INTERNAL_ERROR, "not a C++ exception of the standard library");
  }
}

void check_size(const void* given, std::size_t size, std::size_t known, const char* name) {
  constexpr std::size_t kMost = 4096;  // beyond this nobody filled the field in
  if (size < sizeof size || size > kMost) {
    throw InvalidArgument(std::string(name) + ".size is not set: use its _init function");
  }
  if (size <= known) return;
  const std::span bytes(static_cast<const unsigned char*>(given), size);
  if (std::ranges::any_of(bytes.subspan(known), [](unsigned char byte) { return byte != 0; })) {
    throw InvalidArgument(std::string(name) + " sets fields that this library (" ANNULUS_VERSION
                                              ") does not know");
  }
}

Algorithm algorithm_of(std::int32_t value) { return enumerated<Algorithm>(value, 5, "algorithm"); }

BackwardMoves backward_moves_of(std::int32_t value) {
  return enumerated<BackwardMoves>(value, 3, "backward_moves");
}

Pass pass_of(std::int32_t value) { return enumerated<Pass>(value, 2, "pass"); }

Problem problem_of(const annulus_problem* given) {
  need(given, "problem");
  const annulus_problem p = taken(given, annulus_problem_init, "problem");
  Problem problem{.batch = p.batch,
                  .seq = p.seq,
                  .heads = p.heads,
                  .head_dim = p.head_dim,
                  .dtype = enumerated<DType>(p.dtype, 3, "problem.dtype"),
                  .softcap = p.softcap};
  if (p.seq_kv != -1) problem.seq_kv = p.seq_kv;
  if (p.heads_kv != -1) problem.heads_kv = p.heads_kv;
  if (p.head_dim_v != -1) problem.head_dim_v = p.head_dim_v;
  if (p.softmax_scale != 0.0) problem.softmax_scale = p.softmax_scale;
  if (p.mask != nullptr) problem.mask = p.mask->mask;
  return problem;
}

Layout layout_of(const annulus_layout* given) {
  return given == nullptr ? Layout::zigzag() : given->layout;
}

TensorView view_of(const annulus_tensor* tensor, const char* name) {
  const annulus_tensor& given = need(tensor, name);
  if (given.rank < 0 || given.rank > TensorView::kMaxRank) {
    throw InvalidArgument(std::string(name) + ".rank " + std::to_string(given.rank) +
                          " is not allowed; allowed: 0 to 5");
  }
  TensorView view;
  view.data = given.data;
  view.dtype = enumerated<DType>(given.dtype, 3, "tensor.dtype");
  view.rank = given.rank;
  std::copy_n(given.shape, TensorView::kMaxRank, view.shape.begin());
  std::copy_n(given.strides, TensorView::kMaxRank, view.strides.begin());
  return view;
}

char* text_of(const std::string& text) {
  auto* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy == nullptr) throw std::bad_alloc();
  std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

}  // namespace annulus::c_abi

extern "C" {

const char* annulus_version(void) { return ANNULUS_VERSION; }

const char* annulus_status_name(annulus_status status) {
  switch (status) {
    case ANNULUS_OK:
      return "Ok";
    case ANNULUS_INVALID_ARGUMENT:
      return "InvalidArgument";
    case ANNULUS_UNSUPPORTED:
      return "Unsupported";
    case ANNULUS_DEVICE_ERROR:
      return "DeviceError";
    case ANNULUS_COMM_ERROR:
      return "CommError";
    case ANNULUS_TIMEOUT:
      return "Timeout";
    case ANNULUS_OUT_OF_MEMORY:
      return "OutOfMemory";
    default:
      return "InternalError";
  }
}

void annulus_text_free(char* text) { std::free(text); }

}  // extern "C"
