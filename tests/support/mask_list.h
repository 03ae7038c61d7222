#pragma once

#include <annulus/problem.h>

#include <vector>

namespace annulus::testing {

/// Masks of 97 queries and keys, of each kind and some together: of the kernels' suites, on CPU and
/// GPU.
inline std::vector<std::vector<Mask::Term>> masks_of_97() {
  const Mask::Documents packed{{10, 0, 40, 1, 46}, true};
  const Mask::Documents apart{{10, 0, 40, 1, 46}, false};
  const auto top_left = CausalAlign::top_left;
  return {{},
          {Mask::Causal{}},
          {Mask::Causal{top_left}},
          {Mask::Window{20, 0}},
          {Mask::Window{-1, 5}},
          {Mask::Window{3, -1, top_left}},
          {Mask::Prefix{30}},
          {packed},
          {apart},
          {apart, Mask::Window{7, 7}},
          {packed, Mask::Window{12, 0}},
          {Mask::Prefix{30}, Mask::Window{20, 4}},
          {Mask::Causal{}, Mask::Prefix{60}}};
}

}  // namespace annulus::testing
