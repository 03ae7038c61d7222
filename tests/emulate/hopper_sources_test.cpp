// The emulated Hopper kernels over keys and values that lie in several tensors: right, and bit by
// bit what they are where all lie in one.
#include "attention/kernels/sm90/setup.h"
#include "tests/emulate/backward_check.h"
#include "tests/emulate/forward_check.h"
#include "tests/gpu/shares.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {
namespace {

using attn::KeySegment;

class HopperSources : public ::testing::TestWithParam<std::pair<std::int64_t, std::int64_t>> {
 protected:
  static OracleProblem problem(std::int64_t seq) {
    OracleProblem p = of_dims(problem_of(seq, GetParam().first), GetParam().second);
    p.heads = 2;
    p.heads_kv = 1;
    return p;
  }
};

/// Segments of few keys and of several boxes, in any order; the first has no key of source 0.
std::vector<KeySegment> pieces(std::int64_t keys) {
  auto segments = segments_cut_at(keys, {5, 5, 60, 190});
  std::swap(segments[0], segments[3]);
  return segments;
}

TEST_P(HopperSources, ForwardIsRightOutOfTwoAndOfThree) {
  const OracleProblem p = problem(230);
  for (const std::int32_t sources : {2, 3}) {
    SCOPED_TRACE(std::to_string(sources) + " sources");
    expect_right({make_launch(p, from_sources(pieces(p.seq_kv), sources), kGrid)},
                 {.seed = static_cast<std::uint64_t>(sources)});
  }
}

TEST_P(HopperSources, BackwardIsRightOutOfTwoAndOfThree) {
  const OracleProblem p = problem(150);
  for (const std::int32_t sources : {2, 3}) {
    SCOPED_TRACE(std::to_string(sources) + " sources");
    const auto segments = from_sources(segments_cut_at(p.seq_kv, {5, 5, 60, 130}), sources);
    expect_right({make_launch(p, segments, backward_grid(p))},
                 {.emulation = {.seed = static_cast<std::uint64_t>(sources)}});
  }
}

/// A chain whose second launch reads nothing of k and v themselves.
TEST_P(HopperSources, BitsAreThoseOfOneTensor) {
  const OracleProblem p = problem(150);
  const OracleInputs inputs = random_inputs(p, 3);
  const auto run = [&](bool apart) {
    auto segments = segments_cut_at(p.seq_kv, {5, 40, 110});
    if (apart) segments = from_sources(std::move(segments), 4);
    const TileGrid grid = backward_grid(p);
    return run_backward({make_launch(p, {segments[0], segments[1]}, grid),
                         make_launch(p, {segments[2], segments[3]}, grid)},
                        inputs, {.emulation = {.sms = 1}, .backward = {.deterministic = true}})
        .values;
  };
  const OracleResult one = run(false), several = run(true);
  EXPECT_TRUE(same_bits(one, several)) << differences(one, several);
}

INSTANTIATE_TEST_SUITE_P(AllDims, HopperSources,
                         ::testing::Values(std::pair{128, 128}, std::pair{64, 64},
                                           std::pair{96, 96}, std::pair{192, 128},
                                           std::pair{192, 192}, std::pair{256, 256}));

/// As many as there are maps for, of which each is used.
TEST(HopperSourceLimits, EightAreServed) {
  OracleProblem p = problem_of(200, 128);
  p.heads = 1;
  p.heads_kv = 1;
  const auto segments = from_sources(segments_cut_at(p.seq_kv, {20, 45, 70, 95, 120, 150, 180}), 8);
  expect_right({make_launch(p, segments, kGrid)}, Emulation{});
  expect_right({make_launch(p, segments, backward_grid(p))}, BackwardOptions{});
}

/// What suits() refuses goes to flash2.
TEST(HopperSourceLimits, OtherLaunchesAreRefused) {
  const OracleProblem p = problem_of(100, 128);
  const TestLaunch launch = make_launch(p, one_segment(p), kGrid);
  std::vector<std::uint16_t> memory(64);
  const attn::Input operand{memory.data(), p.dtype, 1 << 20, 1024, 128};
  const auto params = [&](const std::vector<attn::KeySource>& sources) {
    attn::ForwardParams with{};
    with.geometry = launch.geometry();
    with.q = with.k = with.v = operand;
    with.out = {memory.data(), p.dtype, 1 << 20, 1024, 128};
    with.geometry.sources = with.geometry.sources_on_host = sources;
    return with;
  };
  const attn::KeySource good{operand, operand, 50};
  EXPECT_TRUE(attn::sm90::suits(params(std::vector(7, good))));
  EXPECT_FALSE(attn::sm90::suits(params(std::vector(8, good))));
  for (attn::Input attn::KeySource::*which : {&attn::KeySource::k, &attn::KeySource::v}) {
    std::vector<attn::KeySource> sources(2, good);
    (sources[1].*which).token_stride = 1025;
    EXPECT_FALSE(attn::sm90::suits(params(sources)));
    sources[1] = good;
    (sources[1].*which).dtype = DType::f16;
    EXPECT_FALSE(attn::sm90::suits(params(sources)));
  }
  const std::vector<attn::KeySource> sources(2, good);
  attn::ForwardParams unknown = params(sources);
  unknown.geometry.sources_on_host = {};
  EXPECT_FALSE(attn::sm90::suits(unknown));
}

}  // namespace
}  // namespace annulus::testing
