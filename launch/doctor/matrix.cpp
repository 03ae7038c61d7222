#include "launch/doctor/matrix.h"

#include <fmt/format.h>

namespace annulus::launch {
namespace {

constexpr std::int64_t kLargestAsked = 4096;

/// Head dims that the kernel serves, as ranges.
std::string head_dims(const KernelInfo& kernel, DType dtype, Pass pass) {
  std::string text;
  std::int64_t begin = 0;  // of the open range; 0: none
  for (std::int64_t dim = 1; dim <= kLargestAsked + 1; ++dim) {
    const bool serves =
        dim <= kLargestAsked && kernel_refusal(kernel.name, {.backend = kernel.backend,
                                                             .dtype = dtype,
                                                             .head_dim = dim,
                                                             .head_dim_v = dim,
                                                             .pass = pass})
                                    .empty();
    if (serves && begin == 0) begin = dim;
    if (serves || begin == 0) continue;
    const bool open = dim > kLargestAsked;
    text += fmt::format("{}{}{}", text.empty() ? "" : ", ", begin,
                        open ? " and up" : fmt::format("-{}", dim - 1));
    begin = 0;
  }
  return text.empty() ? "none" : text;
}

}  // namespace

std::vector<MatrixRow> kernel_matrix() {
  std::vector<MatrixRow> rows;
  for (const KernelInfo& kernel : kernels_built()) {
    for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
      for (const Pass pass : {Pass::forward, Pass::backward}) {
        rows.push_back({.backend = kernel.backend,
                        .kernel = kernel.name,
                        .dtype = std::string(name_of(dtype)),
                        .head_dim = head_dims(kernel, dtype, pass),
                        .mask = "every",
                        .pass = std::string(name_of(pass))});
      }
    }
  }
  return rows;
}

}  // namespace annulus::launch
