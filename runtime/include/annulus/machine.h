#pragma once

#include <annulus/export.h>
#include <annulus/layout.h>
#include <annulus/plan.h>
#include <annulus/problem.h>

#include <string>
#include <vector>

namespace annulus {

/// What one rank runs at: nominal figures, to compare plans on paper. The default is one core of a
/// server CPU with AVX2 or AVX-512 and ranks that share memory.
struct Machine {
  std::string name = "one CPU core a rank";
  double flops_per_s = 40e9;
  double memory_bytes_per_s = 10e9;
  double link_bytes_per_s = 4e9;
  double transfer_s = 20e-6;  ///< start of one transfer
};

/// Analytic: max(FLOPs / peak, bytes touched / memory bandwidth) + bytes / link + transfers *
/// start.
ANNULUS_API double predicted_seconds(const PlanTotals& plan, const Machine& machine);

/// An algorithm with the mesh it wants, and why it was taken.
struct AlgorithmChoice {
  Algorithm algorithm = Algorithm::ring;
  MeshShape mesh{};
  double predicted_s = 0;  ///< slowest rank, all passes
  std::string reason;      ///< the candidates with their predicted times
};

/// Resolves `automatic`: the candidate (ring, gather, ulysses) whose slowest rank is predicted to
/// be first done. Pure, so that all ranks choose alike.
ANNULUS_API AlgorithmChoice choose_algorithm(const Problem& problem, const Layout& layout,
                                             int world, const std::vector<Pass>& passes,
                                             const Machine& machine = {});

}  // namespace annulus
