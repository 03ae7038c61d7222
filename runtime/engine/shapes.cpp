#include "runtime/engine/shapes.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::engine {
namespace {

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

}  // namespace

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

}  // namespace annulus::engine
