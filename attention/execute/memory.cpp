#include "attention/execute/memory.h"

#include <utility>

namespace annulus::attn {

Memory::Memory(const RankPlan& plan, std::int64_t batch, std::byte* arena) : batch_(batch) {
  for (const PlanSlot& s : plan.slots) {
    SlotMemory m;
    m.dtype = s.dtype;
    m.heads_first = s.heads_first;
    m.head_stride = s.heads_first ? s.tokens * s.dim : s.dim;
    m.token_stride = s.heads_first ? s.dim : std::int64_t{s.heads} * s.dim;
    m.batch_stride = s.tokens * s.heads * s.dim;
    if (s.space != Space::caller) m.data = arena + s.offset;
    slots_.push_back(m);
  }
}

void Memory::set_caller(const RankPlan& plan, Role role, const TensorView& tensor) {
  for (std::size_t i = 0; i < plan.slots.size(); ++i) {
    if (plan.slots[i].role != role) continue;
    SlotMemory& m = slots_[i];
    m.data = static_cast<std::byte*>(tensor.data);
    m.batch_stride = tensor.strides[0];
    m.token_stride = tensor.strides[role == Role::lse ? 2 : 1];
    m.head_stride = tensor.strides[role == Role::lse ? 1 : 2];
  }
}

std::byte* Memory::at(const Block& b) const {
  const SlotMemory& m = slot(b.slot);
  const std::int64_t elements = b.token * m.token_stride + b.head * m.head_stride + b.dim;
  return m.data + elements * size_of(m.dtype);
}

comm::Region Memory::region(const Block& b, bool heads_first) const {
  const SlotMemory& m = slot(b.slot);
  const std::int64_t size = size_of(m.dtype);
  comm::Region r;
  r.base = at(b);
  r.count = {batch_, b.tokens, b.heads};
  r.stride = {m.batch_stride * size, m.token_stride * b.token_step * size, m.head_stride * size};
  if (heads_first) {
    std::swap(r.count[1], r.count[2]);
    std::swap(r.stride[1], r.stride[2]);
  }
  r.run = b.dims * size;
  return r;
}

}  // namespace annulus::attn
