// The kernels' launches on the GPU, for tests that hold host memory.
#include "tests/moe/kernels/launches.h"

#include "tests/gpu/mirror.h"

#include <algorithm>

namespace annulus::testing {

void launch_route(const moe::cuda::RouteParams& host, int /*each*/, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::RouteParams p = host;
  const std::int64_t pairs = p.tokens * p.k;
  p.logits = mirror.of(host.logits, p.tokens * p.experts);
  p.bias = mirror.of(host.bias, p.experts);
  p.padding = mirror.of(host.padding, p.tokens);
  p.indices = mirror.of(host.indices, pairs);
  p.weights = mirror.of(host.weights, pairs);
  p.bad_tokens = mirror.of(host.bad_tokens, 1);
  moe::cuda::route(p, nullptr);
  mirror.download();
}

void launch_route_backward(const moe::cuda::RouteBackwardParams& host, int /*each*/,
                           std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::RouteBackwardParams p = host;
  const std::int64_t pairs = p.forward.tokens * p.forward.k;
  p.forward.logits = mirror.of(host.forward.logits, p.forward.tokens * p.forward.experts);
  p.forward.indices = mirror.of(host.forward.indices, pairs);
  p.kept = mirror.of(host.kept, pairs);
  p.dweights = mirror.of(host.dweights, pairs);
  p.dlogits = mirror.of(host.dlogits, p.forward.tokens * p.forward.experts);
  moe::cuda::route_backward(p, nullptr);
  mirror.download();
}

void launch_placement(const moe::cuda::PlaceParams& host, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::PlaceParams p = host;
  const std::int64_t pairs = std::int64_t{p.tokens} * p.k;
  p.indices = mirror.of(host.indices, pairs);
  p.room = mirror.of(host.room, moe::cuda::place_room(p));
  p.counts = mirror.of(host.counts, p.experts);
  p.matrix = mirror.of(host.matrix, std::int64_t{p.sources} * p.experts);
  p.rank = mirror.of(host.rank, pairs);
  p.row = mirror.of(host.row, pairs);
  p.expert_first = mirror.of(host.expert_first, p.experts);
  p.expert_rows = mirror.of(host.expert_rows, p.experts);
  p.rank_rows = mirror.of(host.rank_rows, p.ranks);
  p.unique_first = mirror.of(host.unique_first, p.ranks + 1);
  p.unique_tokens = mirror.of(host.unique_tokens, std::int64_t{p.tokens} * std::min(p.k, p.ranks));
  p.unique_of = mirror.of(host.unique_of, pairs);
  p.mismatch = mirror.of(host.mismatch, 1);
  moe::cuda::count_pairs(p, nullptr);
  moe::cuda::place_pairs(p, nullptr);
  mirror.download();
}

void launch_scatter(const moe::cuda::ScatterParams& host, const std::int64_t* rows, int /*piece*/,
                    std::uint64_t seed) {
  Mirror mirror;
  moe::cuda::ScatterParams p = host;
  p.from = mirror.of(host.from, p.tokens * p.from_stride);
  p.rank = mirror.of(host.rank, p.tokens * p.k);
  p.place = mirror.of(host.place, p.tokens * p.k);
  p.weights = mirror.of(host.weights, p.tokens * p.k);
  for (std::int64_t r = 0; r < moe::cuda::kMostRanks; ++r) {
    if (host.to[r] == nullptr) continue;
    p.to[r] = mirror.of(host.to[r], rows[r] * p.bytes);
    // A place for each pair, where rows come once a rank.
    const std::int64_t places = host.row != nullptr ? p.tokens * p.k : rows[r];
    p.weights_to[r] = mirror.of(host.weights_to[r], places);
    p.source_of[r] = mirror.of(host.source_of[r], places);
  }
  p.row = mirror.of(host.row, p.tokens * p.k);
  p.own_rows = mirror.of(host.own_rows, p.tokens * p.k * p.bytes);
  moe::cuda::scatter(p, seed % 2 == 0 ? 0 : 3, nullptr);
  mirror.download();
}

void launch_fetch(const moe::cuda::FetchParams& host, const std::int64_t* rows, int /*piece*/,
                  std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::FetchParams p = host;
  const std::int64_t pairs = p.tokens * p.k;
  p.rank = mirror.of(host.rank, pairs);
  p.place = mirror.of(host.place, pairs);
  p.to = mirror.of(host.to, pairs * p.bytes);
  p.at = mirror.of(host.at, pairs);
  for (std::int64_t r = 0; r < moe::cuda::kMostRanks; ++r) {
    p.from[r] = host.from[r] == nullptr ? nullptr : mirror.of(host.from[r], rows[r] * p.bytes);
  }
  moe::cuda::fetch(p, nullptr);
  mirror.download();
}

void launch_pull(const moe::cuda::PullParams& host, const std::int64_t* rows) {
  Mirror mirror;
  moe::cuda::PullParams p = host;
  p.rank = mirror.of(host.rank, p.pairs);
  p.place = mirror.of(host.place, p.pairs);
  p.to = mirror.of(host.to, p.pairs);
  for (std::int64_t r = 0; r < moe::cuda::kMostRanks; ++r) {
    p.from[r] = host.from[r] == nullptr ? nullptr : mirror.of(host.from[r], rows[r]);
  }
  moe::cuda::pull(p, nullptr);
  mirror.download();
}

void launch_copy(const moe::CopyParams& host, std::int64_t from_rows, std::int64_t to_rows,
                 int /*piece*/, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::CopyParams p = host;
  p.from_at = mirror.of(host.from_at, p.rows);
  p.to_at = mirror.of(host.to_at, p.rows);
  p.from = mirror.of(static_cast<const std::byte*>(host.from), from_rows * p.from_stride);
  p.to = mirror.of(static_cast<std::byte*>(host.to), to_rows * p.to_stride);
  moe::cuda::copy_rows(p, nullptr);
  mirror.download();
}

void launch_combine(const moe::cuda::CombineParams& host, const std::int64_t* rows, bool /*wide*/,
                    std::uint64_t seed) {
  Mirror mirror;
  moe::cuda::CombineParams p = host;
  moe::SumParams& s = p.sum;
  const std::int64_t element = size_of(s.dtype);
  s.at = mirror.of(s.at, s.tokens * s.k);
  s.more = mirror.of(s.more, s.tokens * s.width);
  s.out = mirror.of(static_cast<std::byte*>(s.out), s.tokens * s.out_stride * element);
  p.rank = mirror.of(host.rank, s.tokens * s.k);
  for (std::int64_t r = 0; r < moe::cuda::kMostRanks; ++r) {
    if (host.rows[r] == nullptr) continue;
    p.rows[r] = mirror.of(host.rows[r], rows[r] * s.width * element);
  }
  moe::cuda::combine(p, seed % 2 == 0 ? 0 : 3, nullptr);
  mirror.download();
}

void launch_activate(const moe::ActivateParams& host, bool backward, bool /*wide*/,
                     std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::ActivateParams p = host;
  const std::int64_t element = size_of(p.dtype);
  const std::int64_t between = p.rows * moe::hidden_width(p.activation, p.ffn) * element;
  const bool in_place = host.hidden == host.dhidden;
  auto* dhidden = mirror.of(static_cast<std::byte*>(host.dhidden), between);
  p.dhidden = dhidden;
  p.hidden = in_place ? dhidden : mirror.of(static_cast<const std::byte*>(host.hidden), between);
  p.weights = mirror.of(host.weights, p.rows);
  p.activated = mirror.of(static_cast<std::byte*>(host.activated), p.rows * p.ffn * element);
  p.dactivated =
      mirror.of(static_cast<const std::byte*>(host.dactivated), p.rows * p.ffn * element);
  p.dweights = mirror.of(host.dweights, p.rows);
  moe::cuda::activate_rows(p, backward, nullptr);
  mirror.download();
}

namespace {

moe::cuda::LossParams mirrored(Mirror& mirror, const moe::cuda::LossParams& host) {
  moe::cuda::LossParams p = host;
  p.route.logits = mirror.of(host.route.logits, p.route.tokens * p.route.experts);
  p.route.padding = mirror.of(host.route.padding, p.route.tokens);
  p.set_of = mirror.of(host.set_of, p.route.tokens);
  p.counts = mirror.of(host.counts, p.sets * (p.route.experts + 1));
  p.terms = mirror.of(host.terms, 2 * p.route.tokens);
  p.sums = mirror.of(host.sums, 2);
  p.dlogits = mirror.of(host.dlogits, p.route.tokens * p.route.experts);
  return p;
}

}  // namespace

void launch_count_losses(const moe::cuda::LossParams& host, int /*each*/, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::count_losses(mirrored(mirror, host), nullptr);
  mirror.download();
}

void launch_add_losses(const moe::cuda::LossParams& host, int /*each*/, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::add_losses(mirrored(mirror, host), nullptr);
  mirror.download();
}

void launch_drop(const moe::cuda::DropParams& host, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::DropParams p = host;
  const std::int64_t pairs = p.tokens * p.k;
  p.indices = mirror.of(host.indices, pairs);
  p.weights = mirror.of(host.weights, pairs);
  p.kept = mirror.of(host.kept, pairs);
  p.kept_weights = mirror.of(host.kept_weights, pairs);
  p.room = mirror.of(host.room, p.experts * p.tokens);
  p.dropped = mirror.of(host.dropped, 1);
  moe::cuda::drop_pairs(p, nullptr);
  mirror.download();
}

void launch_jitter(const moe::cuda::JitterParams& host, std::uint64_t /*seed*/) {
  Mirror mirror;
  moe::cuda::JitterParams p = host;
  const std::int64_t element = size_of(p.dtype);
  p.from = mirror.of(static_cast<const std::byte*>(host.from), p.tokens * p.from_stride * element);
  p.to = mirror.of(static_cast<std::byte*>(host.to), p.tokens * p.hidden * element);
  moe::cuda::jitter(p, nullptr);
  mirror.download();
}

void launch_update_bias(const moe::cuda::BiasParams& host) {
  Mirror mirror;
  moe::cuda::BiasParams p = host;
  p.counts = mirror.of(host.counts, p.experts);
  p.bias = mirror.of(host.bias, p.experts);
  moe::cuda::update_bias(p, nullptr);
  mirror.download();
}

}  // namespace annulus::testing
