#pragma once

#include <annulus/trace.h>

#include <cstdint>
#include <initializer_list>

namespace annulus::test {

/// A plan whose items have kinds and transfers only: as much as traces look at.
class HandMade {
 public:
  explicit HandMade(int rank) { plan_.rank = rank; }

  HandMade& computes();
  HandMade& sends(int peer, std::int32_t tag) { return transfer(true, peer, tag); }
  HandMade& receives(int peer, std::int32_t tag) { return transfer(false, peer, tag); }

  const RankPlan& plan() const { return plan_; }

 private:
  HandMade& transfer(bool sends, int peer, std::int32_t tag);

  RankPlan plan_;
};

/// A call of seconds [begin, end]; samples belong to items 0, 1, 2 and so on.
struct Times {
  double begin_s = 0;
  double end_s = 0;
  double await_s = -1;  ///< not negative: by flag
};
CallTrace call(double begin_s, double end_s, std::initializer_list<Times> items);

}  // namespace annulus::test
