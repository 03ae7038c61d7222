// The hash that ranks agree on before any payload.

#include <annulus/error.h>
#include <annulus/plan.h>

#include "tests/attention/random_request.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <string>

namespace annulus {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Change = std::function<void(PlanRequest&)>;

PlanRequest base_request() {
  PlanRequest r;
  r.problem.batch = 2;
  r.problem.seq = 64;
  r.problem.heads = 8;
  r.problem.heads_kv = 4;
  r.problem.head_dim = 16;
  r.problem.mask = Mask::documents({40, 24});
  r.algorithm = Algorithm::hybrid;
  r.mesh = {.ring = 2, .ulysses = 2};
  return r;
}

TEST(PlanHash, IsEqualForEqualRequests) {
  for (std::uint64_t seed = 0; seed < 200; ++seed) {
    test::Random one(seed);
    test::Random two(seed);
    const std::uint32_t hash = make_plan(test::random_request(one)).hash();
    EXPECT_EQ(hash, make_plan(test::random_request(two)).hash());
    EXPECT_GT(hash, 0U);
    EXPECT_LT(hash, 1U << 31U);
  }
}

TEST(PlanHash, FillsInDefaultsFirst) {
  PlanRequest spelled = base_request();
  spelled.problem.seq_kv = 64;
  spelled.problem.head_dim_v = 16;
  spelled.problem.softmax_scale = 0.25;
  EXPECT_EQ(make_plan(spelled).hash(), make_plan(base_request()).hash());
}

TEST(PlanHash, DiffersWhenAnyFieldDiffers) {
  const std::map<std::string, Change> changes{
      {"nothing", [](PlanRequest&) {}},
      {"batch", [](PlanRequest& r) { r.problem.batch = 3; }},
      {"seq",
       [](PlanRequest& r) {
         r.problem.seq = 65;
         r.problem.mask = Mask::documents({40, 25});
       }},
      {"full mask", [](PlanRequest& r) { r.problem.mask = Mask::full(); }},
      {"full mask and seq_kv",
       [](PlanRequest& r) {
         r.problem.mask = Mask::full();
         r.problem.seq_kv = 65;
       }},
      {"heads", [](PlanRequest& r) { r.problem.heads = 16; }},
      {"heads_kv", [](PlanRequest& r) { r.problem.heads_kv = 2; }},
      {"head_dim", [](PlanRequest& r) { r.problem.head_dim = 32; }},
      {"head_dim_v", [](PlanRequest& r) { r.problem.head_dim_v = 32; }},
      {"dtype", [](PlanRequest& r) { r.problem.dtype = DType::bf16; }},
      {"dtype f16", [](PlanRequest& r) { r.problem.dtype = DType::f16; }},
      {"lengths",
       [](PlanRequest& r) {
         r.problem.mask = Mask::documents({41, 23});
       }},
      {"documents",
       [](PlanRequest& r) {
         r.problem.mask = Mask::documents({40, 24}, false);
       }},
      {"softcap", [](PlanRequest& r) { r.problem.softcap = 30.0; }},
      {"softmax_scale", [](PlanRequest& r) { r.problem.softmax_scale = 0.5; }},
      {"contiguous", [](PlanRequest& r) { r.layout = Layout::contiguous(); }},
      {"striped", [](PlanRequest& r) { r.layout = Layout::striped(); }},
      {"ulysses",
       [](PlanRequest& r) {
         r.algorithm = Algorithm::ulysses;
         r.mesh = {.ring = 1, .ulysses = 4};
       }},
      {"ring",
       [](PlanRequest& r) {
         r.algorithm = Algorithm::ring;
         r.mesh = {.ring = 4, .ulysses = 1};
       }},
      {"gather",
       [](PlanRequest& r) {
         r.algorithm = Algorithm::gather;
         r.mesh = {.ring = 4, .ulysses = 1};
       }},
      {"mesh", [](PlanRequest& r) { r.mesh = {.ring = 4, .ulysses = 1}; }},
      {"mesh turned", [](PlanRequest& r) { r.mesh = {.ring = 1, .ulysses = 4}; }},
      {"pass", [](PlanRequest& r) { r.pass = Pass::backward; }},
      {"outer", [](PlanRequest& r) { r.options.outer = Algorithm::gather; }},
      {"tile_q", [](PlanRequest& r) { r.options.tile_q = 128; }},
      {"tile_k", [](PlanRequest& r) { r.options.tile_k = 128; }},
      {"gather_slices", [](PlanRequest& r) { r.options.gather_slices = 2; }},
      {"ulysses_slices", [](PlanRequest& r) { r.options.ulysses_slices = 2; }},
      {"keys_on_grid", [](PlanRequest& r) { r.options.keys_on_grid = true; }},
      {"gather_launch", [](PlanRequest& r) { r.options.gather_launch = GatherLaunch::on_arrival; }},
      {"resume", [](PlanRequest& r) { r.options.resume = false; }},
      {"stage_caller", [](PlanRequest& r) { r.options.stage_caller = true; }},
      {"give_in_place", [](PlanRequest& r) { r.options.give_in_place = true; }},
      {"land_in_place", [](PlanRequest& r) { r.options.land_in_place = true; }},
      {"rounded_dkv", [](PlanRequest& r) { r.options.rounded_dkv = true; }},
      {"backward_moves",
       [](PlanRequest& r) {
         r.pass = Pass::backward;
         r.options.backward_moves = BackwardMoves::queries;
       }},
  };
  std::map<std::uint32_t, std::string> seen;
  for (const auto& [name, change] : changes) {
    PlanRequest request = base_request();
    change(request);
    const auto [at, fresh] = seen.emplace(make_plan(request).hash(), name);
    EXPECT_TRUE(fresh) << name << " has the hash of " << at->second;
  }
}

std::string message_of(const Change& spoil) {
  PlanRequest request = base_request();
  try {
    spoil(request);
    make_plan(request);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(MakePlan, NamesWhatCannotBe) {
  EXPECT_THAT(message_of([](PlanRequest& r) { r.mesh.ring = 0; }), HasSubstr("ring 0"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.algorithm = Algorithm::automatic; }),
              HasSubstr("auto"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.algorithm = Algorithm::ulysses; }),
              AllOf(HasSubstr("ulysses"), HasSubstr("got 2")));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.algorithm = Algorithm::gather; }),
              AllOf(HasSubstr("gather"), HasSubstr("got 2")));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.options.outer = Algorithm::ulysses; }),
              HasSubstr("outer ulysses"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.options.tile_k = 0; }), HasSubstr("tile_k 0"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.options.gather_slices = -1; }),
              HasSubstr("gather_slices -1"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.options.ulysses_slices = -1; }),
              HasSubstr("ulysses_slices -1"));
  EXPECT_THAT(message_of([](PlanRequest& r) { r.problem.heads_kv = 3; }), HasSubstr("heads_kv 3"));
  EXPECT_THAT(message_of([](PlanRequest& r) { make_plan(r).rank(4); }),
              AllOf(HasSubstr("rank 4"), HasSubstr("of 4")));
}

}  // namespace
}  // namespace annulus
