// How ulysses slices heads: the model by hand, and what it chooses.

#include "attention/plan/head_slices.h"
#include "attention/plan/context.h"
#include "attention/plan/ulysses_parts.h"

#include <annulus/plan.h>

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace annulus::attn {
namespace {

using testing::ElementsAre;
using Ends = std::vector<std::int32_t>;

constexpr std::int64_t kWave = 128 * 132;  ///< rows of a head that keep all SMs busy once

/// Two ranks, four heads of which each two share a key/value head; a wave takes 1000 us.
SliceCase by_hand() {
  SliceCase c;
  c.members = 2;
  c.heads = 4;
  c.group = 2;
  c.rows = kWave;
  c.keys = kWave;
  c.pairs = kWave * kWave;
  c.flops_a_pair = 1000;
  c.tflops = static_cast<double>(kWave) * kWave / 1e6;
  c.row_in = 740;
  c.key_in = 2 * c.row_in;
  c.row_out = c.row_in;
  return c;
}

TEST(HeadSlices, CostWhatTheirTransfersAndWavesTake) {
  const SliceCase c = by_hand();
  // What is away of a head's rows: half of 740 bytes a row.
  const double bytes = kWave * 370.0;
  const double link = bytes / 370e3;  // us; K and V of a head take twice that
  const double local = bytes / 1.2e6;
  // Eight such pieces come in: staged, then fetched. Four attends. Own results are copied while
  // four pieces go home, which are then copied out.
  EXPECT_NEAR(sliced_us(c, {4}), 8 * local + 6 + 8 * link + 40 + 4000 + 6 + 4 * link + 4 * local,
              1e-6);
  // Half of it is fetched at first, while own pieces and the other half are copied: 8 + 8 of local
  // copies are less than 4 of them and 4 of the link. The rest comes and goes under the attends.
  ASSERT_LT(16 * local, 4 * local + 4 * link);
  EXPECT_NEAR(sliced_us(c, {2, 4}),
              4 * local + 6 + 4 * link + 2 * (40 + 2000) + 6 + 2 * link + 2 * local, 1e-6);
}

TEST(HeadSlices, CostNoLocalCopiesInPlaceButOwnParts) {
  SliceCase c = by_hand();
  c.gives_in_place = true;
  const double bytes = kWave * 370.0;
  const double link = bytes / 370e3;
  const double local = bytes / 1.2e6;
  EXPECT_NEAR(sliced_us(c, {4}), 6 + 8 * link + 40 + 4000 + 6 + 4 * link + 4 * local, 1e-6);
  c.lands_in_place = true;  // own results are copied while others' come home
  EXPECT_NEAR(sliced_us(c, {4}), 6 + 8 * link + 40 + 4000 + 6 + 4 * link, 1e-6);
}

TEST(HeadSlices, CountWavesOfFullMasksAndTheLongestOfCausalOnes) {
  SliceCase c = by_hand();
  c.row_in = c.key_in = c.row_out = 0;
  const double copies = 6 + 6;
  c.rows = kWave / 4;  // four heads are a wave
  c.pairs = c.rows * c.keys;
  EXPECT_NEAR(sliced_us(c, {4}), copies + 40 + 1000, 1e-6);
  EXPECT_NEAR(sliced_us(c, {2, 4}), copies + 2 * (40 + 1000), 1e-6);
  c.pairs /= 2;  // the longest item is as long as before, and one wave holds all
  EXPECT_NEAR(sliced_us(c, {4}), copies + 40 + 1000, 1e-6);
  c.rows = 4 * kWave;
  c.pairs = c.rows * c.keys / 2;
  EXPECT_NEAR(sliced_us(c, {4}), copies + 40 + 8000, 1e-6);
  EXPECT_NEAR(sliced_us(c, {3, 4}), copies + 2 * 40 + 8000, 1e-6);
}

TEST(HeadSlices, AreEvenOrFewer) {
  EXPECT_THAT(even_slices(8, 1, 1), ElementsAre(8));
  EXPECT_THAT(even_slices(8, 1, 3), ElementsAre(2, 5, 8));
  EXPECT_THAT(even_slices(8, 4, 3), ElementsAre(4, 8));
  EXPECT_THAT(even_slices(7, 3, 9), ElementsAre(3, 6, 7));
  EXPECT_THAT(even_slices(1, 1, 4), ElementsAre(1));
}

SliceCase of_gpus(int world, std::int64_t tokens, std::int64_t heads, std::int64_t heads_kv,
                  Pass pass = Pass::forward) {
  PlanRequest r;
  r.problem.seq = tokens * world;
  r.problem.heads = heads;
  r.problem.heads_kv = heads_kv;
  r.problem.head_dim = 128;
  r.problem.dtype = DType::bf16;
  r.algorithm = Algorithm::ulysses;
  r.mesh = {.ring = 1, .ulysses = world};
  r.pass = pass;
  r.options.ulysses_slices = 0;
  return slice_case(make_plan(r).impl());
}

TEST(HeadSlices, AreOneWhereHeadsAreShortAndSmallAtTheEndsWhereTheyAreLong) {
  EXPECT_THAT(best_slices(of_gpus(4, 1024, 32, 8)), ElementsAre(8));
  EXPECT_THAT(best_slices(of_gpus(4, 2048, 32, 8)), ElementsAre(4, 8));
  EXPECT_THAT(best_slices(of_gpus(4, 16384, 32, 8)), ElementsAre(1, 6, 8));
  EXPECT_THAT(best_slices(of_gpus(8, 8192, 32, 8)), ElementsAre(1, 3, 4));
  EXPECT_THAT(best_slices(of_gpus(8, 8192, 8, 8)), ElementsAre(1));
  EXPECT_THAT(best_slices(of_gpus(1, 8192, 32, 8)), ElementsAre(32));
}

TEST(HeadSlices, DoNotCutKeyHeadsInBackward) {
  for (const std::int64_t tokens : {1024, 4096, 16384}) {
    const SliceCase c = of_gpus(2, tokens, 32, 8, Pass::backward);
    for (const std::int32_t end : best_slices(c)) EXPECT_EQ(end % 4, 0) << tokens;
  }
}

/// Its items are key tiles of a key/value head: one head of 16k tokens has 128 of them, and the
/// longest takes as long as an SM's share of two heads.
TEST(HeadSlices, AreOneInBackwardWhereItemsAreFew) {
  EXPECT_THAT(best_slices(of_gpus(2, 8192, 32, 8, Pass::backward)), ElementsAre(16));
}

TEST(HeadSlices, AreOneInBackwardUnlessAskedFor) {
  PlanRequest r;
  r.problem = {.seq = 65536, .heads = 32, .heads_kv = 8, .head_dim = 128, .dtype = DType::bf16};
  r.algorithm = Algorithm::ulysses;
  r.mesh = {.ring = 1, .ulysses = 4};
  r.options.ulysses_slices = 0;
  EXPECT_THAT(make_plan(r).impl().slice_ends, ElementsAre(1, 6, 8));
  r.pass = Pass::backward;
  EXPECT_THAT(make_plan(r).impl().slice_ends, ElementsAre(8));
  r.options.ulysses_slices = 2;
  EXPECT_THAT(make_plan(r).impl().slice_ends, ElementsAre(4, 8));
}

TEST(HeadSlices, AreTheBestOfAllWithThreeOrFewer) {
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    for (const std::int64_t tokens : {0, 100, 1000, 3000, 20000}) {
      SliceCase c = of_gpus(4, tokens, 24, 12, pass);
      const double best = sliced_us(c, best_slices(c));
      for (std::int32_t first = c.unit; first <= c.heads; first += c.unit) {
        for (std::int32_t second = first; second <= c.heads; second += c.unit) {
          Ends ends{first};
          if (second > first) ends.push_back(second);
          if (ends.back() < c.heads) ends.push_back(c.heads);
          EXPECT_LE(best, sliced_us(c, ends)) << fmt::format("{} of {} tokens", first, tokens);
        }
      }
    }
  }
}

}  // namespace
}  // namespace annulus::attn
