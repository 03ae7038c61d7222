#pragma once

#include <annulus/annulus.h>

#include <cstdint>
#include <vector>

namespace annulus::launch {

/// What one rank runs at. Nominal figures, for comparing plans on paper.
struct Rates {
  double flops_per_s = 20e9;  ///< one core, f32 with AVX2
  double memory_bytes_per_s = 10e9;
  double link_bytes_per_s = 2e9;
  double transfer_s = 20e-6;  ///< start of one transfer
};

/// Totals of a plan by rank, over the passes asked for.
struct PlanTotals {
  std::vector<std::int64_t> masked_pairs;  ///< of one pass: backward meets the same pairs
  std::vector<std::int64_t> flops;
  std::vector<std::int64_t> bytes_sent;
  std::vector<std::int64_t> bytes_received;
  std::vector<std::int64_t> peak_bytes;  ///< the larger of the passes
  std::vector<double> predicted_s;       ///< analytic
  std::int64_t items = 0;                ///< of all ranks
};

/// Materialises the ranks one by one on `threads` threads; none is kept. Analytic time of a rank:
/// max(FLOPs / peak, bytes touched / memory) + bytes sent / link + transfers * start.
PlanTotals total(const std::vector<Plan>& passes, const Rates& rates, int threads);

}  // namespace annulus::launch
