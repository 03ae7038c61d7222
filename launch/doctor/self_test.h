#pragma once

#include <annulus/mesh.h>

#include <string>
#include <vector>

namespace annulus::launch {

/// One back end, tried out.
struct Trial {
  std::string name;    ///< "kernel flash2, bf16"
  std::string result;  ///< figures, or what went wrong
  bool passed = false;
  double seconds = 0;
};

/// Every kernel, forward and backward, at a small shape against float64.
std::vector<Trial> try_kernels();
/// Threads of this process: a transfer with its rate, and attention over two ranks.
std::vector<Trial> try_local();
/// The same over the ranks that were started; collective, results on every rank.
std::vector<Trial> try_mesh(Mesh& mesh);

}  // namespace annulus::launch
