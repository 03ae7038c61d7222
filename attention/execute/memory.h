#pragma once

#include "comm/transport.h"

#include <annulus/plan.h>
#include <annulus/tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::attn {

/// Where a slot lies: [batch, token, head, dim] by strides in elements, the last one 1.
struct SlotMemory {
  std::byte* data = nullptr;
  DType dtype = DType::f32;
  std::int64_t batch_stride = 0;
  std::int64_t token_stride = 0;
  std::int64_t head_stride = 0;
  bool heads_first = false;  ///< how regions go through it: as it lies
};

/// The slots of one rank's plan in memory. Those of the caller are set before each call.
class Memory {
 public:
  /// `arena` holds plan.arena_bytes.
  Memory(const RankPlan& plan, std::int64_t batch, std::byte* arena);

  /// The slots with role `role` become `tensor`. lse is [batch, heads, seq], all others
  /// [batch, seq, heads, dim].
  void set_caller(const RankPlan& plan, Role role, const TensorView& tensor);

  std::int64_t batch() const { return batch_; }
  const SlotMemory& slot(std::int32_t id) const { return slots_[static_cast<std::size_t>(id)]; }

  /// First element of a block.
  std::byte* at(const Block& block) const;
  /// In the order of memory, so that what lies in one piece is one. Both ends of a transfer have
  /// the same one.
  comm::Region region(const Block& block) const {
    return region(block, slot(block.slot).heads_first);
  }
  comm::Region region(const Block& block, bool heads_first) const;

 private:
  std::int64_t batch_;
  std::vector<SlotMemory> slots_;
};

}  // namespace annulus::attn
