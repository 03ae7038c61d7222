#include "moe/kernels/cuda/blas.h"
#include "moe/kernels/cuda/kernel.h"
#include "moe/kernels/cuda/pointers.h"
#include "moe/kernels/sm90/grouped.h"

#include <annulus/error.h>

namespace annulus::moe::cuda {

/// What cuBLAS launches it loads itself, at the first product of a kind.
std::shared_ptr<void> open_blas() {
  load_kernels(pointer_entries());
  if (sm90::has_grouped()) load_kernels(sm90::grouped_entries());
  return std::make_shared<Blas>();
}

void multiply(std::span<const Product> products, const LaunchContext& context) {
  if (context.library == nullptr) throw InvalidArgument("products on a GPU: no cuBLAS was opened");
  static_cast<Blas*>(context.library)
      ->run(gemms_of(products), static_cast<cudaStream_t>(context.stream));
  if (context.flops == nullptr) return;
  for (const Product& product : products) *context.flops += product.flops();
}

}  // namespace annulus::moe::cuda
