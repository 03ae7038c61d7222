#pragma once

#include "tests/moe_layer/layer_oracle.h"

#include <annulus/moe_layer.h>

#include <cstdint>
#include <vector>

namespace annulus::testing {

struct DeviceRanks {
  int ranks = 1;                 ///< threads; they share the experts
  std::int64_t more_tokens = 0;  ///< that there is room for beside the case's
  bool empty_rank = false;       ///< a rank without tokens
  bool interleaved = false;      ///< another forward, of another step, before each backward
  std::int64_t capacity = 0;     ///< rows at once; 0: whatever comes
  bool once_a_rank = false;      ///< how tokens travel
  bool in_messages = false;      ///< ranks do not address each other's memory
  moe::Recompute recompute = moe::Recompute::dispatch;
  std::int64_t* most_rounds = nullptr;
  std::int64_t* backward_flops = nullptr;  ///< executed, of all ranks
};

/// Two forwards and backwards of moe::DeviceLayer, of which the second finds what the first left.
/// Results hold all tokens and experts; shared and router gradients are summed over ranks.
/// `indices`, unless null: what every token was routed to.
LayerResult run_on_devices(const LayerCase& layer, const DeviceRanks& run,
                           std::vector<std::int32_t>* indices = nullptr);

}  // namespace annulus::testing
