#include "runtime/engine/shapes.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace annulus::engine {

const char* name_of(Role role) {
  switch (role) {
    case Role::q:
      return "q";
    case Role::k:
      return "k";
    case Role::v:
      return "v";
    case Role::out:
      return "out";
    case Role::lse:
      return "lse";
    case Role::dout:
      return "dout";
    case Role::dq:
      return "dq";
    case Role::dk:
      return "dk";
    case Role::dv:
      return "dv";
    case Role::none:
      break;
  }
  return "?";
}

LocalShapes::LocalShapes(const Problem& problem, const Sharding& sharding, int rank)
    : problem_(problem),
      seq_local_(sharding.seq_local(rank)),
      seq_kv_local_(sharding.seq_kv_local(rank)) {}

ConstTensorView LocalShapes::expected(Role role) const {
  const Problem& p = problem_;
  const std::int64_t wide = *p.head_dim_v;
  switch (role) {
    case Role::lse:
      return {nullptr, DType::f32, {p.batch, p.heads, seq_local_}};
    case Role::k:
    case Role::dk:
      return {nullptr, p.dtype, {p.batch, seq_kv_local_, *p.heads_kv, p.head_dim}};
    case Role::v:
    case Role::dv:
      return {nullptr, p.dtype, {p.batch, seq_kv_local_, *p.heads_kv, wide}};
    case Role::out:
    case Role::dout:
      return {nullptr, p.dtype, {p.batch, seq_local_, p.heads, wide}};
    default:
      return {nullptr, p.dtype, {p.batch, seq_local_, p.heads, p.head_dim}};
  }
}

void LocalShapes::require(Role role, const ConstTensorView& tensor) const {
  const ConstTensorView want = expected(role);
  const bool fits =
      tensor.dtype == want.dtype && tensor.rank == want.rank &&
      std::equal(want.shape.begin(), want.shape.begin() + want.rank, tensor.shape.begin());
  if (!fits) {
    throw InvalidArgument(
        fmt::format("{} is {}, must be {}", name_of(role), describe(tensor), describe(want)));
  }
  const auto last = static_cast<std::size_t>(tensor.rank - 1);
  if (tensor.shape[last] > 1 && tensor.strides[last] != 1 && role != Role::lse) {
    throw InvalidArgument(
        fmt::format("{} has a last stride of {}, must be 1", name_of(role), tensor.strides[last]));
  }
  if (tensor.data == nullptr && tensor.elements() > 0) {
    throw InvalidArgument(fmt::format("{} is {} without data", name_of(role), describe(tensor)));
  }
}

bool rows_suit(const RankPlan& rank, Role role, const TensorView& tensor, std::int64_t bytes) {
  if (bytes == 0 || role == Role::lse) return true;
  auto bits = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(tensor.data));
  for (std::size_t i = 0; i < 3; ++i) bits |= tensor.strides[i] * size_of(tensor.dtype);
  if ((bits & (bytes - 1)) == 0) return true;
  const auto is_it = [&](const SlotView& view) {
    return view.slot >= 0 && rank.slots[static_cast<std::size_t>(view.slot)].role == role;
  };
  return std::ranges::none_of(rank.attends, [&](const Attend& a) {
    return is_it(a.q) || is_it(a.k) || is_it(a.v) || is_it(a.out) || is_it(a.dout) || is_it(a.dq) ||
           is_it(a.dk) || is_it(a.dv);
  });
}

}  // namespace annulus::engine
