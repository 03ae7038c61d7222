// Layouts: every position once, in every kind; tensors cut and joined; what cannot be given.

#include <annulus/error.h>
#include <annulus/layout.h>

#include "tests/attention/random_request.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <numeric>

namespace annulus {
namespace {

using test::Random;
using testing::AllOf;
using testing::HasSubstr;

const Layout kKinds[] = {Layout::contiguous(), Layout::zigzag(), Layout::striped(),
                         Layout::balanced()};

Problem of_length(std::int64_t seq, std::int64_t seq_kv) {
  Problem p;
  p.seq = seq;
  p.seq_kv = seq_kv;
  return p;
}

/// True if the positions of all ranks are 0 .. seq - 1, each once.
bool covers(const Sharding& s, std::int64_t seq, bool keys) {
  std::vector<int> seen(static_cast<std::size_t>(seq), 0);
  for (int r = 0; r < s.world(); ++r) {
    const auto positions = keys ? s.positions_kv(r) : s.positions(r);
    const std::int64_t local = keys ? s.seq_kv_local(r) : s.seq_local(r);
    if (static_cast<std::int64_t>(positions.size()) != local) return false;
    for (const std::int64_t p : positions) {
      if (p < 0 || p >= seq || seen[static_cast<std::size_t>(p)]++ > 0) return false;
    }
  }
  return std::accumulate(seen.begin(), seen.end(), std::int64_t{0}) == seq;
}

std::int64_t spread(const Sharding& s) {
  std::int64_t least = s.seq_local(0);
  std::int64_t most = least;
  for (int r = 1; r < s.world(); ++r) {
    least = std::min(least, s.seq_local(r));
    most = std::max(most, s.seq_local(r));
  }
  return most - least;
}

TEST(Layout, CoversEveryPositionOnceForAnyLengthAndWorld) {
  for (const Layout& layout : kKinds) {
    for (const int world : {1, 2, 3, 4, 5, 6, 7, 8, 9, 64, 1024}) {
      for (const std::int64_t seq : {0, 1, 2, 3, 7, 13, 64, 613, 1021, 4099}) {
        SCOPED_TRACE(fmt::format("{} world {} seq {}", layout.name(), world, seq));
        const Sharding same = solve_layout(layout, of_length(seq, seq), world);
        ASSERT_EQ(same.world(), world);
        EXPECT_TRUE(covers(same, seq, false));
        EXPECT_TRUE(covers(same, seq, true));
        const Sharding other = solve_layout(layout, of_length(seq, seq / 2 + 3), world);
        EXPECT_TRUE(covers(other, seq, false));
        EXPECT_TRUE(covers(other, seq / 2 + 3, true));
      }
    }
  }
}

TEST(Layout, CoversEveryPositionOnceForArbitraryArguments) {
  const bool ok = rc::check("random lengths and worlds", [] {
    const Layout& layout = kKinds[*rc::gen::inRange(0, 4)];
    const int world = *rc::gen::inRange(1, 40);
    const std::int64_t seq = *rc::gen::inRange<std::int64_t>(0, 3000);
    const std::int64_t seq_kv = *rc::gen::inRange<std::int64_t>(0, 3000);
    const Sharding s = solve_layout(layout, of_length(seq, seq_kv), world);
    RC_ASSERT(covers(s, seq, false));
    RC_ASSERT(covers(s, seq_kv, true));
  });
  EXPECT_TRUE(ok);
}

TEST(Layout, SharesTokensEvenly) {
  for (const int world : {1, 2, 3, 7, 64}) {
    for (const std::int64_t seq : {0, 1, 13, 613, 4099}) {
      const Problem p = of_length(seq, seq);
      EXPECT_LE(spread(solve_layout(Layout::contiguous(), p, world)), 1);
      EXPECT_LE(spread(solve_layout(Layout::striped(), p, world)), 1);
      EXPECT_LE(spread(solve_layout(Layout::zigzag(), p, world)), 2);
    }
  }
}

TEST(Layout, PlacesTokensAsItsNameSays) {
  const Problem p = of_length(16, 16);
  using V = std::vector<std::int64_t>;
  EXPECT_EQ(solve_layout(Layout::contiguous(), p, 4).positions(1), (V{4, 5, 6, 7}));
  EXPECT_EQ(solve_layout(Layout::zigzag(), p, 4).positions(1), (V{2, 3, 12, 13}));
  EXPECT_EQ(solve_layout(Layout::zigzag(), p, 4).shard(3).size(), 1U) << "neighbours join";
  EXPECT_EQ(solve_layout(Layout::striped(), p, 4).positions(1), (V{1, 5, 9, 13}));
  const Layout given = Layout::given({{{8, 4, 2}}, {{1, 8, 2}, {0, 4, 2}}});
  EXPECT_EQ(solve_layout(given, p, 2).positions(0), (V{8, 10, 12, 14}));
  EXPECT_EQ(solve_layout(given, p, 2).positions_kv(1), (V{1, 3, 5, 7, 9, 11, 13, 15, 0, 2, 4, 6}));
}

std::string message_of(const Layout& layout, std::int64_t seq, std::int64_t seq_kv, int world) {
  try {
    solve_layout(layout, of_length(seq, seq_kv), world);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(GivenLayout, NamesWhatDoesNotCover) {
  const auto two = [](Shard a, Shard b) { return Layout::given({std::move(a), std::move(b)}); };
  EXPECT_THAT(message_of(two({{0, 4, 1}}, {{4, 4, 1}}), 8, 8, 3),
              AllOf(HasSubstr("2 shards"), HasSubstr("3 ranks")));
  EXPECT_THAT(message_of(two({{0, 4, 1}}, {{5, 3, 1}}), 8, 8, 2), HasSubstr("7 of 8"));
  EXPECT_THAT(message_of(two({{0, 4, 1}}, {{3, 5, 1}}), 8, 8, 2), HasSubstr("position 3"));
  EXPECT_THAT(message_of(two({{0, 4, 1}}, {{4, 5, 1}}), 8, 8, 2),
              AllOf(HasSubstr("rank 1"), HasSubstr("begin 4 count 5 stride 1")));
  EXPECT_THAT(message_of(two({{-1, 4, 1}}, {{4, 4, 1}}), 8, 8, 2), HasSubstr("begin -1"));
  EXPECT_THAT(message_of(two({{0, 4, 0}}, {{4, 4, 1}}), 8, 8, 2), HasSubstr("stride 0"));
  EXPECT_THAT(message_of(two({{0, -4, 1}}, {{4, 4, 1}}), 8, 8, 2), HasSubstr("count -4"));
  const std::int64_t wild = std::int64_t{1} << 62;
  EXPECT_THAT(message_of(two({{0, 5, wild}}, {{4, 4, 1}}), 8, 8, 2), HasSubstr("rank 0"));
  EXPECT_THAT(message_of(two({{0, 4, 1}}, {{4, 4, 1}}), 8, 9, 2),
              AllOf(HasSubstr("seq_kv 9"), HasSubstr("seq 8")));
  EXPECT_THAT(message_of(Layout::given({{{0, 8, 1}}}, {{{0, 8, 1}}}), 8, 9, 1),
              AllOf(HasSubstr("8 of 9"), HasSubstr("keys")));
  EXPECT_THAT(message_of(Layout::zigzag(), 8, 8, 0), HasSubstr("world 0"));
}

/// A [2, seq, 3, 2] tensor inside a larger buffer: gaps between heads, tokens and batches.
struct Strided {
  explicit Strided(std::int64_t seq, float fill)
      : data(static_cast<std::size_t>(2 * (seq * 17 + 5)) + 1, fill),
        view(data.data(), DType::f32, {2, seq, 3, 2}) {
    view.strides = {seq * 17 + 5, 17, 4, 1, 0};
  }
  float& at(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d) {
    return data[static_cast<std::size_t>(b * view.strides[0] + t * 17 + h * 4 + d)];
  }
  std::vector<float> data;
  TensorView view;
};

TEST(Shard, CutsAndJoinsStridedTensors) {
  for (std::uint64_t seed = 0; seed < 60; ++seed) {
    Random random(seed);
    const std::int64_t seq = random.between(0, 40);
    const int world = static_cast<int>(random.between(1, 5));
    const Problem p = resolved(of_length(seq, seq));
    const Sharding s = solve_layout(test::random_layout(random, p, world), p, world);
    SCOPED_TRACE(fmt::format("seed {} seq {} world {}", seed, seq, world));
    Strided full(seq, 0.0F);
    for (std::size_t i = 0; i < full.data.size(); ++i) full.data[i] = static_cast<float>(i);
    Strided joined(seq, -1.0F);
    Strided compact_joined(seq, -1.0F);
    for (int r = 0; r < world; ++r) {
      Strided local(s.seq_local(r), -2.0F);
      shard(s.shard(r), full.view, local.view);
      const auto positions = s.positions(r);
      for (std::size_t t = 0; t < positions.size(); ++t) {
        ASSERT_EQ(local.at(1, static_cast<std::int64_t>(t), 2, 1), full.at(1, positions[t], 2, 1));
        ASSERT_EQ(local.at(1, static_cast<std::int64_t>(t), 0, 2), -2.0F) << "gaps stay";
      }
      unshard(s.shard(r), local.view, joined.view);
      std::vector<float> dense(static_cast<std::size_t>(12 * s.seq_local(r)));
      const TensorView compact(dense.data(), DType::f32, {2, s.seq_local(r), 3, 2});
      shard(s.shard(r), full.view, compact);
      unshard(s.shard(r), compact, compact_joined.view);
    }
    for (std::int64_t i = 0; i < 2 * seq * 6; ++i) {
      const std::int64_t b = i / (seq * 6), t = i / 6 % seq, h = i / 2 % 3, d = i % 2;
      ASSERT_EQ(joined.at(b, t, h, d), full.at(b, t, h, d));
      ASSERT_EQ(compact_joined.at(b, t, h, d), full.at(b, t, h, d));
    }
    EXPECT_TRUE(seq == 0 || joined.at(0, 0, 0, 2) == -1.0F) << "gaps stay";
  }
}

TEST(Shard, RefusesShapesThatDoNotFit) {
  std::vector<float> data(1000);
  const auto view = [&](std::initializer_list<std::int64_t> shape) {
    return TensorView(data.data(), DType::f32, shape);
  };
  const Shard cut{{4, 4, 1}};
  EXPECT_NO_THROW(shard(cut, view({1, 8, 2}), view({1, 4, 2})));
  EXPECT_THROW(shard(cut, view({1, 8, 2}), view({1, 3, 2})), InvalidArgument);
  EXPECT_THROW(shard(cut, view({1, 8, 2}), view({2, 4, 2})), InvalidArgument);
  EXPECT_THROW(shard(cut, view({1, 8, 2}), view({1, 4, 3})), InvalidArgument);
  EXPECT_THROW(shard(cut, view({1, 8, 2}), view({1, 4})), InvalidArgument);
  EXPECT_THROW(shard(cut, view({1, 7, 2}), view({1, 4, 2})), InvalidArgument);
  EXPECT_THROW(unshard(cut, view({1, 4, 2}), view({1, 7, 2})), InvalidArgument);
}

}  // namespace
}  // namespace annulus
