// What may stand in a Routing, and what is counted of it.
#include "moe/routing.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace annulus::moe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Routing two_tokens() {
  return {.tokens = 2, .k = 2, .experts = 5, .indices = {4, 0, -1, 4}, .weights = {1, 2, 0, 3}};
}

std::string complaint(const Routing& routing) {
  try {
    check(routing);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "none";
}

TEST(Routing, AcceptsNoSelectionAndNoTokens) {
  EXPECT_EQ(complaint(two_tokens()), "none");
  EXPECT_EQ(complaint({.tokens = 0, .k = 8, .experts = 256, .indices = {}, .weights = {}}), "none");
}

TEST(Routing, RefusesWhatCannotBe) {
  Routing r = two_tokens();
  r.indices[0] = 5;
  EXPECT_EQ(complaint(r), "routing: token 0 slot 0: expert 5 is not in [-1, 5)");
  r.indices[0] = -2;
  EXPECT_THAT(complaint(r), HasSubstr("expert -2"));
  r.indices[0] = 0;
  EXPECT_EQ(complaint(r), "routing: token 0: expert 0 in slots 0 and 1");
  r = two_tokens();
  r.weights[2] = 0.5F;
  EXPECT_THAT(complaint(r), HasSubstr("token 1 slot 0: weight 0.5 beside -1"));
  r = two_tokens();
  r.weights.pop_back();
  EXPECT_THAT(complaint(r), HasSubstr("4 pairs, but there are 4 indices and 3 weights"));
  r = two_tokens();
  r.k = 6;
  EXPECT_THAT(complaint(r), HasSubstr("k 6, 5 experts"));
}

TEST(Routing, CountsSelectionsOnly) {
  std::vector<std::int64_t> counts{7, 7, 7, 7, 7, 7, 7};
  count_selections(two_tokens(), counts);
  EXPECT_THAT(counts, ElementsAre(1, 0, 0, 0, 2));
  const LoadStatistics load = load_of(counts);
  EXPECT_EQ(load.selections, 3);
  EXPECT_EQ(load.most, 2);
  EXPECT_EQ(load.unused, 3);
  EXPECT_DOUBLE_EQ(load.max_over_mean, 2.0 * 5 / 3);
}

TEST(Routing, LoadOfNothingIsEven) {
  EXPECT_EQ(load_of({0, 0}).max_over_mean, 1.0);
  EXPECT_EQ(load_of({}).max_over_mean, 1.0);
}

}  // namespace
}  // namespace annulus::moe
