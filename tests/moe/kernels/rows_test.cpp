// Rows to experts and back: bytes against bytes, sums against moe/kernels/cpu.
#include "moe/kernels/dispatch.h"
#include "runtime/base/dtype.h"
#include "tests/moe/kernels/launches.h"
#include "tests/support/random.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

std::vector<std::byte> random_bytes(std::int64_t n, std::mt19937_64& generator) {
  std::vector<std::byte> bytes(at(n));
  for (std::byte& b : bytes) b = static_cast<std::byte>(generator());
  return bytes;
}

/// Pairs with ranks and places, each place of a rank once; some pairs go nowhere.
struct Places {
  Places(std::int64_t tokens, std::int64_t k, std::int64_t ranks, std::mt19937_64& generator)
      : rows(at(ranks), 0) {
    for (std::int64_t pair = 0; pair < tokens * k; ++pair) {
      const bool none = random_between(generator, 0, 7) == 0;
      const std::int64_t r = random_between(generator, 0, ranks - 1);
      rank.push_back(none ? -1 : static_cast<std::int32_t>(r));
      place.push_back(none ? -1 : rows[at(r)]++);
    }
  }
  std::vector<std::int64_t> rows;  ///< by rank
  std::vector<std::int32_t> rank;
  std::vector<std::int64_t> place;
};

void expect_scatter(std::int64_t tokens, std::int64_t k, std::int64_t ranks, std::int64_t bytes,
                    int piece, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", rows of " + std::to_string(bytes));
  std::mt19937_64 generator(seed);
  const Places places(tokens, k, ranks, generator);
  const std::int64_t stride = bytes + 2 * piece;
  const auto from = random_bytes(tokens * stride, generator);
  std::vector<float> weights(at(tokens * k));
  for (float& w : weights) w = static_cast<float>(random_between(generator, 1, 1000));
  moe::cuda::ScatterParams p;
  p.tokens = tokens;
  p.k = static_cast<std::int32_t>(k);
  p.bytes = bytes;
  p.from = from.data();
  p.from_stride = stride;
  p.rank = places.rank.data();
  p.place = places.place.data();
  p.weights = weights.data();
  std::vector<std::int64_t> memory;
  std::vector<std::vector<std::byte>> got, want;
  std::vector<std::vector<float>> got_weights, want_weights;
  for (std::int64_t r = 0; r < ranks; ++r) {
    p.first[r] = r % 3;  // rows of other sources come before
    const std::int64_t rows = places.rows[at(r)] + p.first[r] + 1;
    memory.push_back(rows);
    got.emplace_back(at(rows * bytes), std::byte{0xff});
    got_weights.emplace_back(at(rows), -7.0F);
  }
  want = got;
  want_weights = got_weights;
  for (std::int64_t r = 0; r < ranks; ++r) {
    p.to[r] = got[at(r)].data();
    p.weights_to[r] = got_weights[at(r)].data();
  }
  for (std::int64_t pair = 0; pair < tokens * k; ++pair) {
    if (places.rank[at(pair)] < 0) continue;
    const std::size_t r = at(places.rank[at(pair)]);
    const std::int64_t row = p.first[r] + places.place[at(pair)];
    std::memcpy(&want[r][at(row * bytes)], &from[at(pair / k * stride)], at(bytes));
    want_weights[r][at(row)] = weights[at(pair)];
  }
  launch_scatter(p, memory.data(), piece, seed);
  EXPECT_EQ(got, want);
  EXPECT_EQ(got_weights, want_weights);
}

TEST(MoeKernelsRows, ScatterPutsEachRowInItsPlace) {
  expect_scatter(7, 3, 2, 3 * 16, 16, 1);
  expect_scatter(5, 8, 8, 131 * 16, 16, 2);  // more pieces than threads
  expect_scatter(1, 1, 1, 16, 16, 3);
  expect_scatter(4, 2, 3, 2 * 131, 2, 4);
  expect_scatter(3, 32, 64, 5, 1, 5);
}

/// Where slots go: to rank -1 (dropped) or another, as the place-th token and the row-th slot
/// there.
struct TokensOnce {
  TokensOnce(std::int64_t tokens, std::int64_t k, std::int64_t ranks, std::mt19937_64& generator) {
    std::vector<std::int64_t> next(at(ranks), -1), rows(at(ranks), 0);
    for (std::int64_t t = 0; t < tokens; ++t) {
      std::vector<bool> seen(at(ranks), false);
      for (std::int64_t slot = 0; slot < k; ++slot) {
        const std::int64_t r = random_between(generator, -1, ranks - 1);
        rank.push_back(static_cast<std::int32_t>(r));
        if (r >= 0 && !seen[at(r)]) ++next[at(r)];
        if (r >= 0) seen[at(r)] = true;
        place.push_back(r >= 0 ? next[at(r)] : -1);
        row.push_back(r >= 0 ? rows[at(r)]++ : -1);
      }
    }
  }

  moe::cuda::ScatterParams scatter(std::int64_t tokens, std::int64_t k,
                                   const std::vector<std::byte>& from) const {
    moe::cuda::ScatterParams p;
    p.tokens = tokens;
    p.k = static_cast<std::int32_t>(k);
    p.once_a_rank = true;
    p.bytes = p.from_stride = 16;
    p.from = from.data();
    p.rank = rank.data();
    p.place = place.data();
    return p;
  }

  std::vector<std::int32_t> rank;
  std::vector<std::int64_t> place, row;
};

TEST(MoeKernelsRows, ScatterOnceARankSendsEachTokenOnce) {
  std::mt19937_64 generator(6);
  constexpr std::int64_t kTokens = 9, kK = 6, kRanks = 3;
  const TokensOnce once(kTokens, kK, kRanks, generator);
  const auto& [rank, place, row] = once;
  const auto from = random_bytes(kTokens * 16, generator);
  std::vector<std::vector<std::byte>> got(kRanks, std::vector<std::byte>(kTokens * 16));
  auto want = got;
  moe::cuda::ScatterParams p = once.scatter(kTokens, kK, from);
  for (std::size_t r = 0; r < kRanks; ++r) p.to[r] = got[r].data();
  for (std::size_t pair = 0; pair < rank.size(); ++pair) {
    if (rank[pair] < 0) continue;
    std::memcpy(&want[at(rank[pair])][at(place[pair] * 16)], &from[pair / kK * 16], 16);
  }
  const std::vector<std::int64_t> memory(kRanks, kTokens);
  launch_scatter(p, memory.data(), 16, 6);
  EXPECT_EQ(got, want);
}

/// What expanding needs: rows of slots, where each token's row came to, and own rows at once.
TEST(MoeKernelsRows, ScatterOnceARankSaysWhereRowsCameTo) {
  std::mt19937_64 generator(16);
  constexpr std::int64_t kTokens = 7, kK = 5, kRanks = 3, kFirst = 4, kRoom = kTokens + kFirst;
  constexpr std::int32_t kOwn = 1;
  const TokensOnce once(kTokens, kK, kRanks, generator);
  const auto& [rank, place, row] = once;
  std::vector<float> weights(rank.size());
  std::iota(weights.begin(), weights.end(), 1.0F);
  const auto from = random_bytes(kTokens * 16, generator);
  const std::vector<std::byte> none(at(kTokens * kK * 16), std::byte{0xff});
  std::vector<std::vector<std::byte>> tokens(kRanks, none), want = tokens;
  std::vector<std::byte> own = none, want_own = none;
  std::vector<std::vector<float>> got_weights(kRanks, std::vector<float>(kTokens * kK, -7.0F));
  auto want_weights = got_weights;
  std::vector<std::vector<std::int64_t>> sources(kRanks,
                                                 std::vector<std::int64_t>(kTokens * kK, -7));
  auto want_sources = sources;
  moe::cuda::ScatterParams p = once.scatter(kTokens, kK, from);
  p.row = row.data();
  p.weights = weights.data();
  p.own = kOwn;
  p.own_rows = own.data();
  for (std::size_t r = 0; r < kRanks; ++r) {
    p.to[r] = tokens[r].data();
    p.first[r] = kFirst;
    p.weights_to[r] = got_weights[r].data();
    p.source_of[r] = sources[r].data();
  }
  for (std::size_t pair = 0; pair < rank.size(); ++pair) {
    if (rank[pair] < 0) continue;
    const std::size_t r = at(rank[pair]), to = at(row[pair]);
    const std::byte* token = &from[pair / kK * 16];
    want_weights[r][to] = weights[pair];
    want_sources[r][to] = rank[pair] == kOwn ? -1 : place[pair] + kFirst;
    std::byte* there =
        rank[pair] == kOwn ? &want_own[to * 16] : &want[r][at((place[pair] + kFirst) * 16)];
    std::memcpy(there, token, 16);
  }
  const std::vector<std::int64_t> memory(kRanks, kRoom);
  launch_scatter(p, memory.data(), 16, 6);
  EXPECT_EQ(tokens, want);
  EXPECT_EQ(own, want_own);
  EXPECT_EQ(got_weights, want_weights);
  EXPECT_EQ(sources, want_sources);
}

/// Rounds out and back: together they move every row once, and a round touches no other's.
TEST(MoeKernelsRows, RoundsGoOutAndComeBack) {
  std::mt19937_64 generator(17);
  constexpr std::int64_t kTokens = 9, kK = 4, kRanks = 3, kCapacity = 5;
  for (const std::int64_t bytes : {48, 6}) {
    const Places places(kTokens, kK, kRanks, generator);
    const auto from = random_bytes(kTokens * bytes, generator);
    std::vector<std::byte> got(at(kTokens * kK * bytes), std::byte{0xff}), want = got;
    std::vector<std::int64_t> pair_at(at(kTokens * kK), -7), want_at;
    std::vector<float> values(at(kTokens * kK), -7.0F), want_values;
    for (std::int64_t pair = 0; pair < kTokens * kK; ++pair) {
      const std::int64_t place = places.place[at(pair)];
      want_at.push_back(place < 0 ? -1 : pair);
      want_values.push_back(place < 0 ? 0.0F : static_cast<float>(place));
      if (place < 0) continue;
      std::memcpy(&want[at(pair * bytes)], &from[at(pair / kK * bytes)], at(bytes));
    }
    for (std::int64_t low = 0; low < std::ranges::max(places.rows); low += kCapacity) {
      moe::cuda::ScatterParams out;
      moe::cuda::FetchParams back;
      moe::cuda::PullParams pull;
      out.tokens = back.tokens = kTokens;
      out.k = back.k = kK;
      out.low = back.low = pull.low = low;
      out.high = back.high = pull.high = low + kCapacity;
      out.bytes = out.from_stride = back.bytes = bytes;
      out.from = from.data();
      out.rank = back.rank = pull.rank = places.rank.data();
      out.place = back.place = pull.place = places.place.data();
      back.to = got.data();
      back.at = pair_at.data();
      pull.pairs = kTokens * kK;
      pull.to = values.data();
      std::vector<std::vector<std::byte>> there(kRanks,
                                                std::vector<std::byte>(at(kCapacity * bytes)));
      std::vector<float> numbers;
      for (std::int64_t i = 0; i < kCapacity; ++i) numbers.push_back(static_cast<float>(low + i));
      for (std::size_t r = 0; r < kRanks; ++r) {
        out.to[r] = there[r].data();
        out.first[r] = -low;
        back.from[r] = there[r].data();
        pull.from[r] = numbers.data();
      }
      const std::vector<std::int64_t> memory(kRanks, kCapacity);
      const int piece = bytes % 16 == 0 ? 16 : 2;
      launch_scatter(out, memory.data(), piece, 8);
      launch_fetch(back, memory.data(), piece, 9);
      launch_pull(pull, memory.data());
    }
    EXPECT_EQ(got, want);
    EXPECT_EQ(pair_at, want_at);
    EXPECT_EQ(values, want_values);
  }
}

/// dy to the rows of slots: the same rows, without ranks.
TEST(MoeKernelsRows, CopyFollowsBothTables) {
  std::mt19937_64 generator(7);
  const auto from = random_bytes(6 * 48, generator);
  const std::vector<std::int64_t> from_at{5, -1, 0, 3, 3}, to_at{4, 1, 0, -1, 2};
  for (const int piece : {16, 4, 2, 1}) {
    std::vector<std::byte> got(5 * 64, std::byte{0xff});
    auto want = got;
    const moe::CopyParams p{.rows = 5,
                            .bytes = 32,
                            .from_at = from_at.data(),
                            .from = from.data(),
                            .from_stride = 48,
                            .to_at = to_at.data(),
                            .to = got.data(),
                            .to_stride = 64};
    moe::CopyParams host = p;
    host.to = want.data();
    moe::kernel("cpu").copy(host, {});
    launch_copy(p, 6, 5, piece, 7);
    EXPECT_EQ(got, want);
  }
}

std::vector<std::byte> stored(DType dtype, const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * at(size_of(dtype)));
  for (std::size_t i = 0; i < values.size(); ++i) {
    store_f64(bytes.data(), dtype, static_cast<std::int64_t>(i), values[i]);
  }
  return bytes;
}

/// Bits: both add in the order of slots and round once.
void expect_sum(const moe::SumParams& shape, std::int64_t ranks, bool wide, std::uint64_t seed) {
  SCOPED_TRACE("seed " + std::to_string(seed) + ", width " + std::to_string(shape.width));
  std::mt19937_64 generator(seed);
  Places places(shape.tokens, shape.k, ranks, generator);
  const std::int64_t bytes = shape.width * size_of(shape.dtype);
  moe::cuda::CombineParams p{.sum = shape, .rank = places.rank.data()};
  std::vector<std::vector<std::byte>> rows;
  std::vector<std::byte> all;  // of all ranks, for the host
  std::vector<std::int64_t> first;
  for (std::int64_t r = 0; r < ranks; ++r) {
    first.push_back(static_cast<std::int64_t>(all.size()) / std::max<std::int64_t>(1, bytes));
    rows.push_back(
        stored(shape.dtype, random_normal(places.rows[at(r)] * shape.width, seed + at(r))));
    all.insert(all.end(), rows.back().begin(), rows.back().end());
  }
  for (std::size_t r = 0; r < rows.size(); ++r) p.rows[r] = rows[r].data();
  std::vector<std::int64_t> in_all;
  for (std::size_t i = 0; i < places.place.size(); ++i) {
    const bool none = places.place[i] < 0;
    in_all.push_back(none ? -1 : first[at(places.rank[i])] + places.place[i]);
  }
  std::vector<float> more;
  for (const double x : random_normal(shape.tokens * shape.width, seed + 99)) {
    more.push_back(static_cast<float>(x));
  }
  std::vector<std::byte> got(at(shape.tokens * shape.out_stride * size_of(shape.dtype)),
                             std::byte{0xff});
  auto want = got;
  p.sum.at = places.place.data();
  p.sum.out = got.data();
  p.sum.more = seed % 2 == 0 ? more.data() : nullptr;
  moe::SumParams host = p.sum;
  host.at = in_all.data();
  host.rows = all.data();
  host.out = want.data();
  const moe::Kernel& cpu = moe::kernel("cpu");
  std::vector<std::byte> workspace(at(cpu.workspace_bytes(1)));
  cpu.sum(host, {.threads = 1, .workspace = workspace});
  launch_combine(p, places.rows.data(), wide, seed);
  EXPECT_EQ(got, want);
}

TEST(MoeKernelsRows, CombineHasTheHostsBits) {
  std::uint64_t seed = 20;
  for (const DType dtype : {DType::bf16, DType::f32, DType::f16}) {
    for (const std::int64_t width : {8, 24, 136 * 8}) {
      const moe::SumParams shape{
          .dtype = dtype, .tokens = 5, .k = 8, .width = width, .out_stride = width + 8};
      expect_sum(shape, 3, true, ++seed);
      expect_sum(shape, 1, true, ++seed);
    }
    expect_sum({.dtype = dtype, .tokens = 7, .k = 2, .width = 131, .out_stride = 133}, 2, false,
               ++seed);
    expect_sum({.dtype = dtype, .tokens = 1, .k = 1, .width = 1, .out_stride = 1}, 1, false,
               ++seed);
  }
}

}  // namespace
}  // namespace annulus::testing
