#pragma once

#include <annulus/plan.h>
#include <annulus/tensor.h>

namespace annulus::engine {

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

}  // namespace annulus::engine
