// Compiled with cuda_shim.h before it and device/ before the repository's root.
#include "tests/moe/kernels/launches.h"

#include "moe/kernels/cuda/device/activate.cuh"
#include "moe/kernels/cuda/device/capacity.cuh"
#include "moe/kernels/cuda/device/jitter.cuh"
#include "moe/kernels/cuda/device/losses.cuh"
#include "moe/kernels/cuda/device/placement.cuh"
#include "moe/kernels/cuda/device/router.cuh"
#include "moe/kernels/cuda/device/router_backward.cuh"
#include "moe/kernels/cuda/device/rows.cuh"
#include "moe/kernels/cuda/device/split.cuh"

#include <algorithm>
#include <new>

namespace annulus::testing {

namespace {

using namespace moe::cuda;  // NOLINT
using emulate::Machine;
using moe::ActivateParams;
using moe::CopyParams;

template <typename Body>
void run_blocks(std::int64_t blocks, int threads, std::uint64_t seed, const Body& body) {
  const auto count = static_cast<unsigned>(blocks);
  for (unsigned i = 0; i < count; ++i) {
    Machine machine({seed + i, {}});
    machine.run(threads, {i, 0, 0}, {count, 1, 1}, [&] { body(static_cast<std::int64_t>(i)); });
  }
}

/// Of the block that runs; its bytes are NaN at first.
template <typename Shared>
Shared& shared_memory() {
  static_assert(sizeof(Shared) <= 48 * 1024);
  return *reinterpret_cast<Shared*>(Machine::current().shared());
}

/// A warp a token, two a block.
template <typename Work>
void each_token(std::int64_t tokens, std::uint64_t seed, const Work& work) {
  constexpr int kWarps = 2;
  run_blocks((tokens + kWarps - 1) / kWarps, kWarps * kWarp, seed, [&](std::int64_t block) {
    const std::int64_t token = block * kWarps + warp_id();
    if (token < tokens) work(token);
  });
}

/// work.operator()<each>()
template <typename Work>
void by_width(int each, const Work& work) {
  if (each == 1) return work.template operator()<1>();
  if (each == 4) return work.template operator()<4>();
  if (each == 8) return work.template operator()<8>();
  work.template operator()<16>();
}

/// Few blocks, so that each has several rows.
template <typename Work>
void each_row(std::int64_t rows, int threads, std::uint64_t seed, const Work& work) {
  const std::int64_t blocks = rows < 3 ? rows : 3;
  run_blocks(blocks, threads, seed, [&](std::int64_t block) {
    for (std::int64_t row = block; row < rows; row += blocks) work(row);
  });
}

template <typename T, int kWidth>
void combine_as(const CombineParams& p, std::uint64_t seed) {
  each_row(p.sum.tokens, kRowThreads, seed,
           [&](std::int64_t token) { sum_token<T, kWidth>(p, shared_memory<SlotRows>(), token); });
}

template <typename T, int kWidth>
void activate_as(const ActivateParams& p, bool backward, std::uint64_t seed) {
  run_blocks(p.rows, kGateThreads, seed, [&](std::int64_t row) {
    if (!backward) return activate_row<T, kWidth>(p, row);
    activate_row_backward<T, kWidth>(p, shared_memory<GateShared>(), row);
  });
}

/// work.operator()<T, width>()
template <typename Work>
void by_type(DType dtype, bool wide, const Work& work) {
  if (dtype == DType::bf16) {
    return wide ? work.template operator()<Bf16, 8>() : work.template operator()<Bf16, 1>();
  }
  if (dtype == DType::f16) {
    return wide ? work.template operator()<Half, 8>() : work.template operator()<Half, 1>();
  }
  return wide ? work.template operator()<float, 4>() : work.template operator()<float, 1>();
}

template <typename Work>
void by_piece(int piece, const Work& work) {
  if (piece == 16) return work.template operator()<uint4>();
  if (piece == 2) return work.template operator()<std::uint16_t>();
  work.template operator()<std::uint8_t>();
}

}  // namespace

void launch_route(const RouteParams& p, int each, std::uint64_t seed) {
  by_width(each, [&]<int kEach>() {
    each_token(p.tokens, seed, [&](std::int64_t token) { route_token<kEach>(p, token); });
  });
}

void launch_route_backward(const RouteBackwardParams& p, int each, std::uint64_t seed) {
  by_width(each, [&]<int kEach>() {
    each_token(p.forward.tokens, seed,
               [&](std::int64_t token) { route_token_backward<kEach>(p, token); });
  });
}

void launch_counts(const PlaceParams& p, std::uint64_t seed) {
  run_blocks(p.blocks(), kPlaceThreads, seed, [&](std::int64_t block) {
    count_block(p, reinterpret_cast<std::int32_t*>(Machine::current().shared()),
                static_cast<int>(block));
  });
  run_blocks(p.columns(), kWarp, seed,
             [&](std::int64_t column) { scan_column(p, static_cast<int>(column)); });
}

void launch_places(const PlaceParams& p, std::uint64_t seed) {
  run_blocks(p.tokens > 0 ? p.blocks() : 1, kPlaceThreads, seed + 1000, [&](std::int64_t block) {
    place_block(p, shared_memory<PlaceShared>(), static_cast<int>(block));
  });
}

void launch_placement(const PlaceParams& p, std::uint64_t seed) {
  launch_counts(p, seed);
  launch_places(p, seed);
}

void launch_scatter(const ScatterParams& p, const std::int64_t* /*rows*/, int piece,
                    std::uint64_t seed) {
  by_piece(piece, [&]<typename Piece>() {
    each_row(p.tokens, kRowThreads, seed, [&](std::int64_t token) {
      scatter_token<Piece>(p, shared_memory<SlotRows>(), token);
    });
  });
}

void launch_copy(const CopyParams& p, std::int64_t /*from_rows*/, std::int64_t /*to_rows*/,
                 int piece, std::uint64_t seed) {
  if (piece == 4) {
    for (std::int64_t i = 0; i < p.rows * (p.bytes / 4); ++i) copy_piece(p, i);
    return;
  }
  by_piece(piece, [&]<typename Piece>() {
    each_row(p.rows, kRowThreads, seed, [&](std::int64_t row) { copy_row<Piece>(p, row); });
  });
}

void launch_combine(const CombineParams& p, const std::int64_t* /*rows*/, bool wide,
                    std::uint64_t seed) {
  by_type(p.sum.dtype, wide, [&]<typename T, int kWidth>() { combine_as<T, kWidth>(p, seed); });
}

void launch_activate(const ActivateParams& p, bool backward, bool wide, std::uint64_t seed) {
  by_type(p.dtype, wide,
          [&]<typename T, int kWidth>() { activate_as<T, kWidth>(p, backward, seed); });
}

void launch_count_losses(const LossParams& p, int each, std::uint64_t seed) {
  by_width(each, [&]<int kEach>() {
    each_token(p.route.tokens, seed, [&](std::int64_t token) { count_token<kEach>(p, token); });
  });
}

void launch_add_losses(const LossParams& p, int each, std::uint64_t seed) {
  by_width(each, [&]<int kEach>() {
    each_token(p.route.tokens, seed, [&](std::int64_t token) { add_token<kEach>(p, token); });
  });
  if (p.terms == nullptr) return;
  run_blocks(1, kSumThreads, seed, [&](std::int64_t /*block*/) {
    sum_terms(p, reinterpret_cast<double*>(Machine::current().shared()));
  });
}

void launch_drop(const DropParams& p, std::uint64_t seed) {
  std::copy_n(p.indices, p.tokens * p.k, p.kept);
  std::copy_n(p.weights, p.tokens * p.k, p.kept_weights);
  run_blocks(p.experts, kDropThreads, seed, [&](std::int64_t expert) {
    drop_of_expert(p, shared_memory<DropShared>(), static_cast<int>(expert));
  });
}

void launch_jitter(const JitterParams& p, std::uint64_t seed) {
  by_type(p.dtype, false, [&]<typename T, int kWidth>() {
    each_row(p.tokens, kJitterThreads, seed,
             [&](std::int64_t token) { jitter_token<T>(p, token); });
  });
}

void launch_update_bias(const BiasParams& p) {
  for (int e = 0; e < p.experts; ++e) update_bias_of(p, e);
}

void launch_fetch(const FetchParams& p, const std::int64_t* /*rows*/, int piece,
                  std::uint64_t seed) {
  by_piece(piece, [&]<typename Piece>() {
    each_row(p.tokens, kRowThreads, seed,
             [&](std::int64_t token) { fetch_token<Piece>(p, shared_memory<SlotRows>(), token); });
  });
}

void launch_pull(const PullParams& p, const std::int64_t* /*rows*/) {
  for (std::int64_t pair = 0; pair < p.pairs; ++pair) pull_value(p, pair);
}

void launch_split(const SplitParams& p, std::uint64_t /*seed*/) {
  by_type(p.dtype, false, [&]<typename T, int kWidth>() {
    for (std::int64_t i = 0; i < p.count; ++i) {
      split_element(p.from, static_cast<T*>(p.high), static_cast<T*>(p.low), i);
    }
  });
}

}  // namespace annulus::testing
