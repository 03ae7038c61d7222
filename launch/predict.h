#pragma once

#include <annulus/annulus.h>

#include <cstdint>
#include <vector>

namespace annulus::launch {

/// Totals of a plan by rank, over the passes asked for.
struct RanksTotals {
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
RanksTotals total(const std::vector<Plan>& passes, const Machine& rates, int threads);

}  // namespace annulus::launch
