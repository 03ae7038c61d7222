#include "launch/bench/element.h"
#include "launch/bench/measure.h"
#include "launch/bench/tensors.h"
#include "launch/options/sources.h"
#include "launch/request/problem.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

#include <cmath>
#include <limits>

namespace annulus::launch::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Settings with(std::vector<std::string> words) {
  Settings settings;
  read_command_line(words, settings);
  return settings;
}

TEST(Request, ProblemTakesEveryKey) {
  const Problem p = problem_of(with({"--seq",           "10",
                                     "--heads",         "6",
                                     "--heads-kv",      "2",
                                     "--head-dim-v",    "32",
                                     "--mask",          "documents+window",
                                     "--documents",     "3,0,7",
                                     "--window-left",   "4",
                                     "--dtype",         "f16",
                                     "--softcap",       "30",
                                     "--softmax-scale", "0.5"}));
  EXPECT_EQ(*p.seq_kv, 10);
  EXPECT_EQ(*p.heads_kv, 2);
  EXPECT_EQ(*p.head_dim_v, 32);
  EXPECT_EQ(p.dtype, DType::f16);
  EXPECT_EQ(p.softcap, 30.0);
  EXPECT_EQ(*p.softmax_scale, 0.5);
  EXPECT_EQ(p.mask, Mask::documents({3, 0, 7}) & Mask::window(4));
}

TEST(Request, MeshFollowsTheAlgorithm) {
  EXPECT_EQ(mesh_of(with({"--algorithm", "ring"}), 6), (MeshShape{.ring = 6, .ulysses = 1}));
  EXPECT_EQ(mesh_of(with({"--algorithm", "ulysses"}), 6), (MeshShape{.ring = 1, .ulysses = 6}));
  EXPECT_EQ(mesh_of(with({"--algorithm", "hybrid", "--ulysses-degree", "2"}), 6),
            (MeshShape{.ring = 3, .ulysses = 2}));
}

TEST(Request, AttentionOptionsTakeEveryKey) {
  const AttentionOptions preset = attention_options_of(with({}));
  EXPECT_TRUE(preset.gather_at_once);
  EXPECT_TRUE(preset.gather_push);
  EXPECT_EQ(preset.ulysses_slices, 0);
  EXPECT_EQ(preset.sm_limit, 0);
  EXPECT_EQ(preset.backward_moves, BackwardMoves::automatic);
  const AttentionOptions asked = attention_options_of(
      with({"--gather-at-once", "false", "--gather-push", "false", "--ulysses-slices", "3",
            "--sm-limit", "116", "--tile-q", "64", "--backward-moves", "keys"}));
  EXPECT_FALSE(asked.gather_at_once);
  EXPECT_FALSE(asked.gather_push);
  EXPECT_EQ(asked.ulysses_slices, 3);
  EXPECT_EQ(asked.sm_limit, 116);
  EXPECT_EQ(asked.backward_moves, BackwardMoves::keys);
  const Settings queries =
      with({"--backward-moves", "queries", "--algorithm", "ring", "--seq", "1k"});
  EXPECT_EQ(attention_options_of(queries).backward_moves, BackwardMoves::queries);
  EXPECT_EQ(plan_request_of(queries, 2, Pass::backward).options.backward_moves,
            BackwardMoves::queries);
  SessionOptions session;
  place_session(queries, session);
  EXPECT_EQ(session.backward_moves, BackwardMoves::queries);
  EXPECT_EQ(asked.tile_q, 64);
}

TEST(Request, WorldIsTheRanksThatWereStarted) {
  const World none;
  const World four{.rank = 0, .size = 4, .launcher = "mpirun"};
  EXPECT_EQ(world_of(with({}), none), 1);
  EXPECT_EQ(world_of(with({"--transport", "local", "--world", "5"}), none), 5);
  EXPECT_EQ(world_of(with({}), four), 4);
  EXPECT_EQ(planned_world_of(with({"--world", "1k"}), none), 1024);
  EXPECT_THAT(refusal([&] { world_of(with({"--world", "5"}), four); }), HasSubstr("--world: '5'"));
  EXPECT_THAT(refusal([&] {
                transport_of(with({"--transport", "local"}), four);
              }),
              HasSubstr("--transport: 'local'"));
}

class Lengths : public Scratch {
 protected:
  // Not "@" + path: GCC 12 sees an overlap there that is none (-Wrestrict).
  static std::string at(const std::string& path) { return std::string("@").append(path); }
};

TEST_F(Lengths, AreReadFromFiles) {
  const std::string good = write("d.txt", "# source\n3  # a\n\n0\n1k\n").string();
  EXPECT_THAT(document_lengths(with({"--documents", at(good)})), ElementsAre(3, 0, 1024));
  const std::string bad = write("e.txt", "3\nfour\n").string();
  EXPECT_THAT(refusal([&] {
                document_lengths(with({"--documents", at(bad)}));
              }),
              HasSubstr(bad + ":2: documents: 'four'"));
  EXPECT_THAT(refusal([&] {
                document_lengths(with({"--documents", "@/nowhere"}));
              }),
              HasSubstr("--documents: "));
  EXPECT_THAT(refusal([&] {
                document_lengths(with({"--documents", "3,-1"}));
              }),
              HasSubstr("--documents: '-1'"));
}

TEST(Request, ChunksAndDecodes) {
  const CostRequest r = cost_request_of(with(
      {"--stage", "chunked", "--chunks", "0:300,2k:212", "--decode-kv", "80,4x2048,1/4/1000/37"}));
  ASSERT_EQ(r.chunks.size(), 2U);
  EXPECT_EQ(r.chunks[1].past, 2048);
  EXPECT_EQ(r.chunks[1].fresh, 212);
  ASSERT_EQ(r.decodes.size(), 3U);
  EXPECT_EQ(r.decodes[1].count, 4);
  EXPECT_TRUE(r.decodes[2].beams);
  EXPECT_EQ(r.decodes[2].generated, 37);
}

TEST(Request, PairsByRankFollowTheLayout) {
  const CostRequest r =
      cost_request_of(with({"--seq", "8", "--sp", "2", "--layout", "contiguous"}));
  EXPECT_THAT(r.masked_pairs_by_rank, ElementsAre(10, 26));
}

TEST(Element, RoundsToNearestEven) {
  EXPECT_EQ(rounded(DType::bf16, 1.0 + 0x1p-8), 1.0);
  EXPECT_EQ(rounded(DType::bf16, 1.0 + 3 * 0x1p-8), 1.0 + 0x1p-6);
  EXPECT_EQ(rounded(DType::f16, 1.0 + 0x1p-11), 1.0);
  EXPECT_EQ(rounded(DType::f16, -65504.0), -65504.0);
  EXPECT_EQ(rounded(DType::f16, 65520.0), std::numeric_limits<double>::infinity());
  EXPECT_EQ(rounded(DType::f16, 0x1p-24), 0x1p-24);
  EXPECT_EQ(rounded(DType::f16, 0x1p-25), 0.0);
  EXPECT_TRUE(std::isnan(rounded(DType::f16, std::nan(""))));
  for (const DType dtype : {DType::f32, DType::f16, DType::bf16}) {
    EXPECT_EQ(rounded(dtype, 0.5), 0.5);
    EXPECT_EQ(rounded(dtype, -0.0), 0.0);
  }
}

TEST(Inputs, AreStandardNormalAndTheSameForEveryRank) {
  const Generator generator(7, DType::f32);
  const std::vector<double> head = generator.head(Input::q, 0, 1000, 3, 64);
  double sum = 0;
  double squares = 0;
  for (const double x : head) {
    sum += x;
    squares += x * x;
  }
  const auto n = static_cast<double>(head.size());
  EXPECT_NEAR(sum / n, 0.0, 0.02);
  EXPECT_NEAR(squares / n, 1.0, 0.03);
  std::vector<double> row(64);
  generator.row(Input::q, 0, 512, 3, 64, row.data());
  EXPECT_TRUE(std::equal(row.begin(), row.end(), head.begin() + 512 * 64));
}

TEST(Measure, MedianAndTail) {
  const Timing even = timing_of({4, 1, 3, 2});
  EXPECT_EQ(even.median_s, 2.5);
  EXPECT_EQ(even.p99_s, 4);
  EXPECT_EQ(timing_of({5}).median_s, 5);
}

}  // namespace
}  // namespace annulus::launch::test
