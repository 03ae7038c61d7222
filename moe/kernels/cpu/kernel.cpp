#include "moe/kernels/cpu/kernel.h"

namespace annulus::moe::cpu {

const Kernel& kernel() {
  static const Kernel table{.name = "blocked",
                            .backend = "cpu",
                            .multiply = &multiply,
                            .activate = &activate,
                            .activate_backward = &activate_backward,
                            .sum = &sum,
                            .copy = &copy,
                            .workspace_bytes = &workspace_bytes};
  return table;
}

}  // namespace annulus::moe::cpu
