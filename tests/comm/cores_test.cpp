#include "comm/cores.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <initializer_list>
#include <vector>

namespace annulus::testing {
namespace {

comm::Placement on(std::uint64_t host, std::initializer_list<std::size_t> cores) {
  comm::Placement p{.host = host};
  for (const std::size_t core : cores) CPU_SET(core, &p.cores);
  return p;
}

TEST(Cores, AreCrowdedByMoreRanksThanTheHostLends) {
  const std::vector<comm::Placement> all{on(1, {0, 1}), on(1, {0, 1}), on(1, {0, 1}), on(2, {0})};
  EXPECT_TRUE(comm::crowded(all, 0));
  EXPECT_FALSE(comm::crowded(all, 3));
}

TEST(Cores, AreNotCrowdedByRanksBoundToOneEach) {
  const std::vector<comm::Placement> all{on(1, {0}), on(1, {1}), on(1, {2})};
  for (int rank = 0; rank < 3; ++rank) EXPECT_FALSE(comm::crowded(all, rank));
}

TEST(Cores, AreNotCrowdedWhereTheyCannotBeCounted) {
  const std::vector<comm::Placement> all{on(1, {}), on(1, {})};
  EXPECT_FALSE(comm::crowded(all, 0));
}

TEST(Cores, OfThisThreadAreAtLeastOne) {
  const comm::Placement mine = comm::placement("here");
  EXPECT_GT(CPU_COUNT(&mine.cores), 0);
  EXPECT_NE(mine.host, comm::placement("there").host);
}

}  // namespace
}  // namespace annulus::testing
