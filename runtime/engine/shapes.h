#pragma once

#include <annulus/plan.h>
#include <annulus/tensor.h>

#include <cstdint>

namespace annulus::engine {

const char* name_of(Role role);

/// What a caller's tensor must look like on one rank.
class LocalShapes {
 public:
  LocalShapes(const Problem& problem, const Sharding& sharding, int rank);

  /// Throws InvalidArgument, naming the tensor, what it is and what it must be.
  void require(Role role, const ConstTensorView& tensor) const;

 private:
  ConstTensorView expected(Role role) const;

  Problem problem_;
  std::int64_t seq_local_;
  std::int64_t seq_kv_local_;
};

/// No kernel of this pass reads or writes the caller's tensor of this role, or its address and
/// strides are multiples of so many bytes, a power of two; 0: they always are.
bool rows_suit(const RankPlan& rank, Role role, const TensorView& tensor, std::int64_t bytes);

}  // namespace annulus::engine
