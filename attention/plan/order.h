#pragma once

#include <annulus/plan.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::attn {

/// The two items of one transfer.
struct TransferEnds {
  std::int32_t send = -1;
  std::int32_t receive = -1;
  int from = -1;
  int to = -1;
};

/// What is ordered before what, over all ranks and two consecutive calls. Every item has a start
/// and an end. Known: an item's start is before its end; a wait's end before the waiter's start; a
/// send's start before its receive's end (data cannot arrive earlier). That a send ends after its
/// receive starts is not relied on for safety (an eager message may be buffered), but counts when
/// looking for deadlock.
class Order {
 public:
  Order(const std::vector<RankPlan>& ranks, const std::vector<TransferEnds>& transfers);

  bool acyclic() const { return acyclic_; }

  /// True if item a of call_a has ended before item b of call_b starts, both of `rank`.
  bool before(int rank, std::int32_t a, int call_a, std::int32_t b, int call_b) const;

 private:
  std::size_t start(int rank, std::int32_t item, int call) const;
  std::size_t end(int rank, std::int32_t item, int call) const {
    return start(rank, item, call) + 1;
  }
  void connect(const std::vector<RankPlan>& ranks, const std::vector<TransferEnds>& transfers);
  bool sort_with_rendezvous(const std::vector<TransferEnds>& transfers);
  void close();

  std::vector<std::size_t> first_;  ///< first node by rank
  std::size_t nodes_ = 0;           ///< of one call
  std::vector<std::vector<std::uint32_t>> next_;
  std::vector<std::uint32_t> sorted_;
  std::vector<std::vector<std::uint64_t>> reach_;  ///< bit sets
  bool acyclic_ = false;
};

}  // namespace annulus::attn
