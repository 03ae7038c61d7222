// The Hopper backward of query rows that come while it runs, on an emulated block: of every head
// dim, until they are there Q, dO, LSE and row sums are NaN.
#include "tests/emulate/backward_check.h"
#include "tests/emulate/late_rows.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;
using attn::QuerySegment;
using Options = BackwardOptions;

struct Dims {
  std::int64_t dim, dim_v;
};

/// Rows 0, 1, ... in segments that end before each of `cuts`, and before `rows`.
std::vector<QuerySegment> rows_cut_at(std::int64_t rows, const std::vector<std::int64_t>& cuts) {
  std::vector<QuerySegment> segments;
  for (const KeySegment& keys : segments_cut_at(rows, cuts)) {
    segments.push_back({.row = keys.token, .token = keys.token, .count = keys.count});
  }
  return segments;
}

std::vector<RowPart> parts_of(const std::vector<QuerySegment>& segments, std::int64_t heads) {
  std::vector<RowPart> parts;
  for (const QuerySegment& s : segments) parts.push_back({s.token, s.count, 0, heads});
  return parts;
}

/// A launch whose query segments each have a counter, down when the backward begins and raised with
/// the rows in the order that is asked for.
struct LateLaunch {
  TestLaunch launch;
  std::vector<std::uint32_t> flags;
  LateRows rows;

  LateLaunch(TestLaunch from, std::vector<QuerySegment> segments)
      : launch(std::move(from)),
        flags(segments.size(), 1),
        rows(parts_of(segments, launch.problem.heads)) {
    for (std::size_t i = 0; i < segments.size(); ++i) segments[i].ready = &flags[i];
    launch.queries = segments;
  }
  LateLaunch(const LateLaunch&) = delete;
  LateLaunch& operator=(const LateLaunch&) = delete;

  void arrive_in(const std::vector<std::size_t>& order, Options& options) {
    options.backward.launched = [this](const attn::BackwardParams& p) {
      std::fill(flags.begin(), flags.end(), 0);
      rows.hide(p);
    };
    for (const std::size_t i : order) {
      options.emulation.late.emplace_back([this, i] {
        if (flags[i] != 0) return;  // a second block of the launch
        rows.arrive(i);
        flags[i] = 3;
      });
      options.emulation.late.emplace_back([] {});
    }
  }
};

class BackwardRows : public ::testing::TestWithParam<Dims> {
 protected:
  static OracleProblem problem(std::int64_t seq, DType dtype = DType::bf16) {
    OracleProblem p = problem_of(seq, GetParam().dim, dtype);
    p.head_dim_v = GetParam().dim_v;
    return p;
  }
  static TestLaunch launch_of(const OracleProblem& p) {
    return make_launch(p, one_segment(p), backward_grid(p));
  }
  static void expect_late(LateLaunch& late, const std::vector<std::size_t>& order,
                          Options options) {
    late.arrive_in(order, options);
    expect_right({late.launch}, options);
    EXPECT_EQ(late.flags, std::vector<std::uint32_t>(late.flags.size(), 3));
  }
};

TEST_P(BackwardRows, ComeLate) {
  for (std::uint64_t seed = 1; seed < 4; ++seed) {
    LateLaunch late(launch_of(problem(213)), rows_cut_at(213, {70, 71, 150}));
    expect_late(late, {3, 0, 2, 1}, {.emulation = {.seed = seed, .sms = 1}});
  }
  LateLaunch turns(launch_of(problem(213)), rows_cut_at(213, {100}));
  expect_late(turns, {1, 0}, {.emulation = {.sms = 1}, .backward = {.deterministic = true}});
  LateLaunch single(launch_of(problem(130, DType::f16)), rows_cut_at(130, {60}));
  expect_late(single, {0, 1}, {.emulation = {.sms = 1, .joined = false}});
}

/// Two key/value heads with groups of two; their keys are late too.
TEST_P(BackwardRows, AndKeysComeLate) {
  OracleProblem p = problem(150);
  p.heads = 4;
  p.heads_kv = 2;
  auto keys = segments_cut_at(150, {70});
  std::vector<std::uint32_t> flags{1, 1};
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i].ready = &flags[i];
  LateLaunch late(make_launch(p, keys, backward_grid(p)), rows_cut_at(150, {90}));
  Options options{.emulation = {.sms = 1}};
  options.backward.before = [&] { flags = {0, 0}; };
  options.emulation.late = {[&] { flags[1] = 1; }};
  late.arrive_in({1}, options);
  options.emulation.late.emplace_back([&] { flags[0] = 1; });
  late.arrive_in({0}, options);
  expect_right({late.launch}, options);
  EXPECT_EQ(late.flags, (std::vector<std::uint32_t>{3, 3}));
  EXPECT_EQ(flags, (std::vector<std::uint32_t>{1, 1}));
}

/// Two segments share a counter, which says of heads and 128 rows how far they are.
TEST_P(BackwardRows, ArriveInParts) {
  OracleProblem p = problem(300);
  p.heads_kv = 1;
  // Of segment 0 (rows [0, 70)) a block a head, of segment 1 (rows [70, 300)) two.
  const std::vector<std::vector<std::uint32_t>> needed{{1, 4}, {2, 3, 0, 5}};
  const std::vector<RowPart> parts{
      {0, 70, 0, 1}, {70, 128, 0, 1}, {198, 102, 0, 1}, {0, 70, 1, 1}, {198, 102, 1, 1}};
  for (std::uint64_t seed = 1; seed < 3; ++seed) {
    std::uint32_t arrived = 5;
    TestLaunch launch = launch_of(p);
    launch.queries = rows_cut_at(300, {70});
    for (std::size_t i = 0; i < 2; ++i) {
      launch.queries[i].ready = &arrived;
      launch.queries[i].all = 5;
      launch.queries[i].needed = needed[i].data();
    }
    LateRows rows(parts);
    Options options{.emulation = {.seed = seed, .sms = 1}};
    options.backward.deterministic = seed == 2;
    options.backward.launched = [&](const attn::BackwardParams& given) {
      arrived = 0;
      rows.hide(given);
    };
    options.emulation.late.assign(5, [&] {
      rows.arrive(arrived);
      ++arrived;
    });
    expect_right({launch}, options);
    EXPECT_EQ(arrived, 5U);
  }
}

/// The launch ends, wherever it stands. That no copy is under way then, the machine checks.
TEST_P(BackwardRows, Abort) {
  for (const bool ordered : {false, true}) {
    for (std::size_t segment = 0; segment < 3; ++segment) {
      std::uint32_t word = 0;
      LateLaunch late(launch_of(problem(213)), rows_cut_at(213, {70, 150}));
      Options options{.emulation = {.seed = segment + 1, .abort = &word},
                      .backward = {.deterministic = ordered}};
      if (ordered) options.emulation.sms = 1;
      for (std::size_t i = 0; i < 3; ++i) {
        if (i != segment) late.arrive_in({i}, options);
      }
      // Turns look at the word now and then.
      options.emulation.late.emplace_back([&] { word = 1; });
      options.emulation.late.resize(200, [] {});
      EXPECT_NO_THROW(run_backward({late.launch}, random_inputs(late.launch.problem, 3), options));
      EXPECT_EQ(word, 1U);
      EXPECT_EQ(late.flags[segment], 0U);
    }
  }
}

TEST_P(BackwardRows, RandomShapes) {
  for (std::uint64_t seed = 1; seed <= 4; ++seed) {
    std::mt19937_64 random(31 * seed + static_cast<std::uint64_t>(GetParam().dim));
    const auto draw = [&](std::int64_t from, std::int64_t to) {
      return from + static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(to - from + 1));
    };
    OracleProblem p = problem(draw(2, 200), draw(0, 1) == 0 ? DType::bf16 : DType::f16);
    p.seq_kv = draw(0, 1) == 0 ? p.seq : draw(1, 200);
    p.heads_kv = draw(1, 2);
    p.heads = p.heads_kv * draw(1, 2);
    p.batch = draw(1, 2);
    if (draw(0, 2) == 0) p.terms.clear();
    std::vector<std::int64_t> cuts{draw(1, p.seq), draw(1, p.seq), draw(1, p.seq)};
    std::sort(cuts.begin(), cuts.end());
    LateLaunch late(launch_of(p), rows_cut_at(p.seq, cuts));
    std::vector<std::size_t> order{0, 1, 2, 3};
    std::shuffle(order.begin(), order.end(), random);
    Options options{.emulation = {.seed = seed}, .backward = {.deterministic = draw(0, 1) == 0}};
    options.emulation.sms = options.backward.deterministic ? 1 : static_cast<int>(draw(1, 3));
    SCOPED_TRACE("random shape of seed " + std::to_string(seed));
    late.arrive_in(order, options);
    expect_right({late.launch}, options);
  }
}

/// Of rows alone: consumers have nothing left and no row is there.
TEST(EmulatedBackwardRows, CountsWhatItWaits) {
  attn::WaitCount count;
  const OracleProblem p = problem_of(300);
  LateLaunch late(make_launch(p, one_segment(p), kGrid), rows_cut_at(300, {150}));
  Options options{.emulation = {.sms = 1, .waited = &count}};
  options.backward.before = [&] { count = {}; };
  expect_right({late.launch}, options);
  EXPECT_EQ(count.blocks, 1);
  EXPECT_EQ(count.nanoseconds, 0);
  options.emulation.late.assign(3, [] {});
  late.arrive_in({1, 0}, options);
  expect_right({late.launch}, options);
  EXPECT_EQ(count.blocks, 1);
  EXPECT_GT(count.nanoseconds, 3);
}

INSTANTIATE_TEST_SUITE_P(Hopper, BackwardRows,
                         ::testing::Values(Dims{64, 64}, Dims{96, 96}, Dims{128, 128},
                                           Dims{192, 128}, Dims{192, 192}, Dims{256, 256}),
                         [](const auto& which) {
                           return std::to_string(which.param.dim) + "_" +
                                  std::to_string(which.param.dim_v);
                         });

}  // namespace
}  // namespace annulus::testing
