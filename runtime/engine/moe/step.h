#pragma once

#include "moe/balance.h"
#include "moe/device_layer.h"
#include "moe/exchange.h"
#include "runtime/base/buffer.h"
#include "runtime/engine/moe/config.h"

#include <annulus/moe_layer.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace annulus::moe {

struct Step::Impl {
  Impl() = default;  ///< of a GPU
  explicit Impl(const engine::LayerShape& shape);

  std::int64_t bytes() const;
  void fetch();  ///< what a GPU has of the fields below

  Routing selected;  ///< what the router chose, or the caller brought
  Routing kept;      ///< what capacity left of it
  RouterStatus status;
  LossScope scope;
  std::int64_t scope_tokens = 0;  ///< of all ranks
  TokenFacts next;                ///< of the forwards that follow
  TokenFacts facts;               ///< of the last forward
  double balance_loss = 0, z_loss = 0;
  std::vector<float> logits;  ///< [tokens, experts]

  ExchangePlan plan;
  std::vector<float> row_weights;        ///< [capacity]
  std::vector<std::int64_t> row_unique;  ///< [capacity]
  Buffer rows;                           ///< [capacity][hidden], unless dispatch is run again
  Buffer between;                        ///< [capacity][between], if backward does not compute it
  Buffer shared_between;                 ///< [max_tokens][shared between]

  bool ready = false;   ///< forward is done and backward is not
  bool routed = false;  ///< by the layer's router
  LayerLoad load;

  // On a GPU, where the fields of the CPU stay empty but for `selected`, `kept` and the losses,
  // which are read when they are asked for.
  std::optional<DeviceStep> device;
  bool is_read = false;
  std::function<void(Impl&)> read{};
};

}  // namespace annulus::moe
