#pragma once

#include "launch/bench/moe/report.h"

#include <annulus/cost.h>

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::launch {

/// MACs of one rank and one layer as GenZ counts them: even shares, whatever the routing was.
struct GenzExperts {
  std::int64_t router_macs = 0;
  std::int64_t expert_macs = 0;
  std::int64_t shared_macs = 0;

  std::int64_t ffn_macs() const { return router_macs + expert_macs + shared_macs; }
};

/// One layer of experts by every accounting. FLOPs are 2 a MAC, by rank.
struct MoeCost {
  GenzExperts original;          ///< all tokens as GenZ's prefill
  GenzExperts original_chunked;  ///< as one chunk of its chunked step
  std::vector<std::int64_t> exact, backward_exact;
  CostMode mode = CostMode::corrected;  ///< of MoE layers, by mode and policy
  std::vector<std::string> reasons;     ///< why the counts differ
  std::vector<CostCheck> checks;        ///< exact <= executed
};

/// Pure.
MoeCost cost_of(const MoeReport& report);

std::string cost_text(const MoeReport& report);
/// The object `cost` of the report: JSON text.
std::string cost_json(const MoeReport& report);

}  // namespace annulus::launch
