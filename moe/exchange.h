#pragma once

#include "moe/exchange_plan.h"
#include "moe/flights.h"
#include "moe/kernels/dispatch.h"
#include "runtime/base/buffer.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus::moe {

/// What travels with each row to its expert: 8 bytes.
struct PairInfo {
  float weight = 0;
  std::int32_t unique = 0;  ///< place among the tokens that the source sends to this rank
};

/// The rows of one rank in a round, compact, by expert.
struct ArrivedRows {
  std::byte* rows = nullptr;       ///< [capacity][row_bytes]
  std::byte* staging = nullptr;    ///< [capacity][row_bytes], for tokens before they are expanded
  float* weights = nullptr;        ///< [capacity]
  std::int64_t* unique = nullptr;  ///< [capacity] row of `staging`, -1: a row of this rank itself
};

/// Moves tokens' rows to their experts' rows and back, over one rank's transport. Takes its memory
/// when it is made: max_tokens * k rows. All ranks of the group make the same calls.
class Exchange {
 public:
  Exchange(comm::Communicator& communicator, const Kernel& kernel, const ExchangeShape& shape);

  const ExchangeShape& shape() const { return shape_; }
  Flights& flights() { return flights_; }
  const Flights& flights() const { return flights_; }
  /// Of the memory it took.
  std::int64_t bytes() const;

  /// Exchanges counts and fills the plan. Throws InvalidArgument for a routing of other experts or
  /// k, or of more tokens than max_tokens.
  void plan(const Routing& routing, ExchangePlan& plan);

  /// x [tokens] rows, `stride` bytes apart, to the experts' rows of a round. `routing`: weights
  /// travel too, and fill to.weights and to.unique; null: those of an earlier dispatch of the same
  /// plan and round are used. start() returns at once, finish() when the rows are there.
  void start_dispatch(const ExchangePlan& plan, std::int64_t round, const void* x,
                      std::int64_t stride, const Routing* routing, const ArrivedRows& to,
                      const LaunchContext& context);
  void finish_dispatch(const ExchangePlan& plan, std::int64_t round, const Routing* routing,
                       const ArrivedRows& to, const LaunchContext& context);

  /// The rows of a round back to their tokens' ranks, into returned(), and `scalars` [capacity],
  /// one for each row, into returned_scalars(); null, on all ranks alike: none.
  void combine(const ExchangePlan& plan, std::int64_t round, const std::byte* rows,
               const float* scalars);

  /// [pairs] in sent order: plan.sent_at says where a pair's is.
  const std::byte* returned() const { return slots_.data(); }
  const float* returned_scalars() const { return scalars_back_.data(); }

 private:
  std::byte* slot(std::int64_t row) { return slots_.data() + row * shape_.row_bytes; }
  int world(int member) const { return shape_.group.world_rank(member); }
  /// First place in this rank's sent order of what goes to a rank.
  std::int64_t sent_base(const ExchangePlan& plan, int rank) const;

  void exchange_counts();
  void pack_rows(const ExchangePlan& plan, std::int64_t round, const void* x, std::int64_t stride,
                 const LaunchContext& context);
  void pack_tokens(const ExchangePlan& plan, const void* x, std::int64_t stride,
                   const LaunchContext& context);
  void copy_own(const ExchangePlan& plan, std::int64_t round, const void* x, std::int64_t stride,
                const ArrivedRows& to);
  void pack_pairs(const ExchangePlan& plan, const Routing& routing);
  void start_pairs(const ExchangePlan& plan, std::int64_t round);
  void start_rows(const ExchangePlan& plan, std::int64_t round, const ArrivedRows& to);
  void start_tokens(const ExchangePlan& plan, const ArrivedRows& to);
  void take_pairs(const ExchangePlan& plan, std::int64_t round, const ArrivedRows& to);

  comm::Communicator& communicator_;
  const Kernel* kernel_;
  ExchangeShape shape_;
  Flights flights_;
  Placement scratch_;
  std::vector<std::int64_t> count_row_, count_rows_;
  std::vector<std::int64_t> from_at_;  ///< of one copy
  Buffer slots_;                       ///< rows in sent order, out and back
  std::vector<PairInfo> pairs_out_, pairs_in_;
  std::vector<float> scalars_out_, scalars_back_;
};

}  // namespace annulus::moe
