#pragma once

#include <annulus/built.h>

#include <string>
#include <vector>

namespace annulus::launch {

/// One row of the dispatch table, asked out.
struct MatrixRow {
  std::string backend, kernel, dtype;
  std::string head_dim;  ///< "1-512"; "none"
  std::string mask;
  std::string pass;
};

/// back end x dtype x head_dim x mask x pass.
std::vector<MatrixRow> kernel_matrix();

}  // namespace annulus::launch
