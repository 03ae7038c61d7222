#include "moe/exchange.h"

#include "moe/routing.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace annulus::moe {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

template <typename T>
std::int64_t bytes_of(std::int64_t elements) {
  return elements * static_cast<std::int64_t>(sizeof(T));
}

}  // namespace

Exchange::Exchange(comm::Communicator& communicator, const Kernel& kernel,
                   const ExchangeShape& shape)
    : communicator_(communicator),
      kernel_(&kernel),
      shape_(shape),
      flights_(communicator, shape.hash) {
  const std::int64_t pairs = shape.max_tokens * shape.k;
  const std::int64_t ranks = shape.group.ranks;
  slots_ = Buffer(pairs * shape.row_bytes);
  pairs_out_.resize(at(pairs));
  scalars_back_.resize(at(pairs));
  if (ranks > 1) {
    pairs_in_.resize(at(shape.capacity));
    scalars_out_.resize(at(shape.capacity));
  }
  from_at_.reserve(at(std::max(pairs, shape.capacity)));
  count_rows_.resize(at(ranks * (shape.experts + ranks)));
  flights_.reserve(at(2 * (ranks - 1) * (shape.local_experts() + 2)));
}

std::int64_t Exchange::bytes() const {
  return slots_.bytes() + bytes_of<PairInfo>(static_cast<std::int64_t>(pairs_out_.size())) +
         bytes_of<PairInfo>(static_cast<std::int64_t>(pairs_in_.size())) +
         bytes_of<float>(static_cast<std::int64_t>(scalars_out_.size() + scalars_back_.size())) +
         bytes_of<std::int64_t>(static_cast<std::int64_t>(from_at_.capacity()));
}

std::int64_t Exchange::sent_base(const ExchangePlan& plan, int rank) const {
  return plan.sent_first[at(rank * shape_.local_experts())];
}

void Exchange::plan(const Routing& routing, ExchangePlan& plan) {
  if (routing.experts != shape_.experts || routing.k != shape_.k ||
      routing.tokens > shape_.max_tokens) {
    throw InvalidArgument(
        fmt::format("rank {}: a routing of {} tokens, k {}, {} experts; the layer was made for at "
                    "most {} tokens, k {}, {} experts",
                    communicator_.rank(), routing.tokens, routing.k, routing.experts,
                    shape_.max_tokens, shape_.k, shape_.experts));
  }
  make_count_row(shape_, routing, count_row_, scratch_);
  exchange_counts();
  make_exchange_plan(shape_, routing, count_rows_, plan);
}

void Exchange::exchange_counts() {
  const auto& group = shape_.group;
  const std::int64_t width = shape_.experts + group.ranks;
  const std::int64_t bytes = bytes_of<std::int64_t>(width);
  flights_.begin("counts", 0);
  for (int r = 0; r < group.ranks; ++r) {
    std::int64_t* row = count_rows_.data() + r * width;
    if (r == group.me) {
      std::copy_n(count_row_.data(), width, row);
      continue;
    }
    flights_.receive(world(r), Cargo::counts, 0, row, bytes);
    flights_.send(world(r), Cargo::counts, 0, count_row_.data(), bytes);
  }
  flights_.wait();
}

/// Rows of a round for other ranks, into sent order: those of an expert then are neighbours. Other
/// rounds' places are left alone: results that came back may lie there.
void Exchange::pack_rows(const ExchangePlan& plan, std::int64_t round, const void* x,
                         std::int64_t stride, const LaunchContext& context) {
  from_at_.assign(at(plan.pairs), -1);
  const int me = shape_.group.me;
  for (int r = 0; r < shape_.group.ranks; ++r) {
    if (r == me) continue;  // copy_own
    const Slice slice = slice_of(plan, me, r, round);
    const std::int64_t first = sent_base(plan, r) + slice.first;
    std::copy_n(plan.sent_token.begin() + first, slice.pairs, from_at_.begin() + first);
  }
  kernel_->copy({.rows = plan.pairs,
                 .bytes = shape_.row_bytes,
                 .from_at = from_at_.data(),
                 .from = x,
                 .from_stride = stride,
                 .to_at = nullptr,
                 .to = slots_.data(),
                 .to_stride = shape_.row_bytes},
                context);
}

/// The tokens of each other rank, each once.
void Exchange::pack_tokens(const ExchangePlan& plan, const void* x, std::int64_t stride,
                           const LaunchContext& context) {
  const Placement& p = plan.placement;
  const auto me = at(shape_.group.me);
  from_at_.assign(p.unique_tokens.begin(), p.unique_tokens.end());
  std::fill(from_at_.begin() + p.unique_first[me], from_at_.begin() + p.unique_first[me + 1], -1);
  kernel_->copy({.rows = static_cast<std::int64_t>(from_at_.size()),
                 .bytes = shape_.row_bytes,
                 .from_at = from_at_.data(),
                 .from = x,
                 .from_stride = stride,
                 .to_at = nullptr,
                 .to = slots_.data(),
                 .to_stride = shape_.row_bytes},
                context);
}

/// From token to row at once.
void Exchange::copy_own(const ExchangePlan& plan, std::int64_t round, const void* x,
                        std::int64_t stride, const ArrivedRows& to) {
  const int me = shape_.group.me;
  const std::int64_t base = sent_base(plan, me);
  each_segment(plan, me, me, round, [&](const Segment& s) {
    for (std::int64_t i = 0; i < s.pairs; ++i) {
      const std::int64_t token = plan.sent_token[at(base + s.sent + i)];
      std::memcpy(to.rows + (s.row + i) * shape_.row_bytes,
                  static_cast<const std::byte*>(x) + token * stride, at(shape_.row_bytes));
    }
  });
}

void Exchange::pack_pairs(const ExchangePlan& plan, const Routing& routing) {
  for (std::size_t pair = 0; pair < plan.sent_at.size(); ++pair) {
    const std::int64_t place = plan.sent_at[pair];
    if (place < 0) continue;
    pairs_out_[at(place)] = {.weight = routing.weights[pair],
                             .unique = static_cast<std::int32_t>(plan.sent_unique[at(place)])};
  }
}

void Exchange::start_pairs(const ExchangePlan& plan, std::int64_t round) {
  const int me = shape_.group.me;
  std::int64_t arrived = 0;
  for (int r = 0; r < shape_.group.ranks; ++r) {
    if (r == me) continue;
    const Slice in = slice_of(plan, r, me, round);
    flights_.receive(world(r), Cargo::pairs, 0, pairs_in_.data() + arrived,
                     bytes_of<PairInfo>(in.pairs));
    arrived += in.pairs;
    const Slice out = slice_of(plan, me, r, round);
    flights_.send(world(r), Cargo::pairs, 0, pairs_out_.data() + sent_base(plan, r) + out.first,
                  bytes_of<PairInfo>(out.pairs));
  }
}

/// Straight into place: both ends know it.
void Exchange::start_rows(const ExchangePlan& plan, std::int64_t round, const ArrivedRows& to) {
  const int me = shape_.group.me;
  const std::int64_t row = shape_.row_bytes;
  for (int r = 0; r < shape_.group.ranks; ++r) {
    if (r == me) continue;
    each_segment(plan, r, me, round, [&](const Segment& s) {
      flights_.receive(world(r), Cargo::rows, s.expert, to.rows + s.row * row, s.pairs * row);
    });
    const std::int64_t base = sent_base(plan, r);
    each_segment(plan, me, r, round, [&](const Segment& s) {
      flights_.send(world(r), Cargo::rows, s.expert, slot(base + s.sent), s.pairs * row);
    });
  }
}

void Exchange::start_tokens(const ExchangePlan& plan, const ArrivedRows& to) {
  const int me = shape_.group.me;
  const std::int64_t row = shape_.row_bytes;
  std::int64_t arrived = 0;
  for (int r = 0; r < shape_.group.ranks; ++r) {
    if (r == me) continue;
    const std::int64_t in = plan.unique[at(r * shape_.group.ranks + me)];
    flights_.receive(world(r), Cargo::tokens, 0, to.staging + arrived * row, in * row);
    arrived += in;
    const std::int64_t first = plan.placement.unique_first[at(r)];
    const std::int64_t out = plan.placement.unique_first[at(r + 1)] - first;
    flights_.send(world(r), Cargo::tokens, 0, slot(first), out * row);
  }
}

void Exchange::start_dispatch(const ExchangePlan& plan, std::int64_t round, const void* x,
                              std::int64_t stride, const Routing* routing, const ArrivedRows& to,
                              const LaunchContext& context) {
  flights_.begin("dispatch", round);
  if (plan.dedup) {
    pack_tokens(plan, x, stride, context);
  } else {
    pack_rows(plan, round, x, stride, context);
  }
  if (routing != nullptr) {
    if (round == 0) pack_pairs(plan, *routing);
    start_pairs(plan, round);
  }
  if (plan.dedup) {
    start_tokens(plan, to);
  } else {
    start_rows(plan, round, to);
  }
  copy_own(plan, round, x, stride, to);
}

/// Weights to their rows; where tokens came, also which of them each row is.
void Exchange::take_pairs(const ExchangePlan& plan, std::int64_t round, const ArrivedRows& to) {
  const int me = shape_.group.me;
  const PairInfo* next = pairs_in_.data();
  std::int64_t staged = 0;
  for (int r = 0; r < shape_.group.ranks; ++r) {
    const bool own = r == me;
    const PairInfo* pairs = own ? pairs_out_.data() + sent_base(plan, me) : next;
    const Slice slice = slice_of(plan, r, me, round);
    const std::int64_t first = own ? 0 : slice.first;  // what arrived begins with the slice
    each_segment(plan, r, me, round, [&](const Segment& s) {
      for (std::int64_t i = 0; i < s.pairs; ++i) {
        const PairInfo& pair = pairs[s.sent - first + i];
        to.weights[s.row + i] = pair.weight;
        to.unique[s.row + i] = own ? -1 : staged + pair.unique;
      }
    });
    if (own) continue;
    next += slice.pairs;
    staged += plan.unique[at(r * shape_.group.ranks + me)];
  }
}

void Exchange::finish_dispatch(const ExchangePlan& plan, std::int64_t round, const Routing* routing,
                               const ArrivedRows& to, const LaunchContext& context) {
  flights_.wait();
  if (routing != nullptr) take_pairs(plan, round, to);
  if (!plan.dedup) return;
  kernel_->copy({.rows = plan.rows(round),
                 .bytes = shape_.row_bytes,
                 .from_at = to.unique,
                 .from = to.staging,
                 .from_stride = shape_.row_bytes,
                 .to_at = nullptr,
                 .to = to.rows,
                 .to_stride = shape_.row_bytes},
                context);
}

void Exchange::combine(const ExchangePlan& plan, std::int64_t round, const std::byte* rows,
                       const float* scalars) {
  flights_.begin("combine", round);
  const int me = shape_.group.me;
  const std::int64_t row = shape_.row_bytes;
  float* next = scalars_out_.data();
  for (int r = 0; r < shape_.group.ranks; ++r) {
    const std::int64_t base = sent_base(plan, r);
    const Slice back = slice_of(plan, me, r, round);  // what this rank sent there
    float* own = scalars_back_.data() + base;
    float* out = r == me ? own + back.first : next;
    float* filled = out;
    each_segment(plan, r, me, round, [&](const Segment& s) {
      if (scalars != nullptr) filled = std::copy_n(scalars + s.row, s.pairs, filled);
      const std::byte* from = rows + s.row * row;
      if (r == me) {
        std::memcpy(slot(base + s.sent), from, at(s.pairs * row));
      } else {
        flights_.send(world(r), Cargo::returns, s.expert, from, s.pairs * row);
      }
    });
    if (r == me) continue;
    each_segment(plan, me, r, round, [&](const Segment& s) {
      flights_.receive(world(r), Cargo::returns, s.expert, slot(base + s.sent), s.pairs * row);
    });
    if (scalars == nullptr) continue;
    flights_.send(world(r), Cargo::scalars, 0, out, bytes_of<float>(filled - out));
    flights_.receive(world(r), Cargo::scalars, 0, own + back.first, bytes_of<float>(back.pairs));
    next = filled;
  }
  flights_.wait();
}

}  // namespace annulus::moe
