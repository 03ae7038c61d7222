// Which transport moves data between GPUs, and how transfers are grouped.

#include "comm/composite/choice.h"
#include "comm/device/rounds.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace annulus::comm {
namespace {

using composite::choose;
using composite::Reach;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

Reach hosts_of(int ranks_per_host, int world, const std::string& nccl_error = {}) {
  std::vector<std::vector<bool>> rows(static_cast<std::size_t>(world));
  for (int a = 0; a < world; ++a) {
    for (int b = 0; b < world; ++b) {
      rows[static_cast<std::size_t>(a)].push_back(a / ranks_per_host == b / ranks_per_host);
    }
  }
  std::vector<std::string> errors(rows.size());
  errors.back() = nccl_error;
  return {rows, std::vector<std::string>(rows.size(), "another host"), errors};
}

std::string refusal(const std::string& asked, const Reach& reach) {
  try {
    return "chose " + choose(asked, reach).transport;
  } catch (const Unsupported& error) {
    return error.what();
  }
}

TEST(Choice, FollowsTopologyAndSaysWhy) {
  EXPECT_EQ(choose("auto", hosts_of(4, 4)).transport, "peer");
  EXPECT_EQ(choose("auto", hosts_of(1, 1)).transport, "peer");
  EXPECT_EQ(choose("auto", hosts_of(2, 4)).transport, "composite");
  EXPECT_EQ(choose("auto", hosts_of(1, 4)).transport, "nccl");
  EXPECT_THAT(choose("auto", hosts_of(2, 4)).reason,
              HasSubstr("rank 2 is out of rank 0's reach: another host"));
  for (const char* asked : {"nccl", "composite"}) {
    EXPECT_EQ(choose(asked, hosts_of(2, 4)).transport, asked);
    EXPECT_EQ(choose(asked, hosts_of(1, 1)).transport, asked);
  }
}

TEST(Choice, RefusesWhatCannotBe) {
  EXPECT_THAT(refusal("peer", hosts_of(2, 4)), HasSubstr("rank 2 is out of rank 0's reach"));
  EXPECT_THAT(refusal("mpi", hosts_of(4, 4)), HasSubstr("built: auto, peer, nccl, composite"));
  const std::string missing = "NCCL cannot be opened";
  for (const char* asked : {"auto", "composite", "nccl"}) {
    EXPECT_THAT(refusal(asked, hosts_of(2, 4, missing)), HasSubstr("rank 3: " + missing));
  }
  EXPECT_THAT(refusal("nccl", hosts_of(4, 4, missing)), HasSubstr(missing));
  EXPECT_EQ(refusal("composite", hosts_of(4, 4, missing)), "chose composite");
  EXPECT_EQ(refusal("auto", hosts_of(4, 4, missing)), "chose peer");
}

TEST(Choice, TakesReachOfOneSideForNone) {
  const Reach reach({{true, true}, {false, true}}, {"", "no peer access"}, {"", ""});
  EXPECT_FALSE(reach.between(0, 1));
  EXPECT_TRUE(reach.none());
  EXPECT_EQ(choose("auto", reach).transport, "nccl");
}

TEST(Rounds, EndWithTheirLastGroupedTransfer) {
  EXPECT_THAT(round_ends({}), IsEmpty());
  EXPECT_THAT(round_ends({{1, true}, {1, false}, {1, true}, {2, false}, {2, true}, {3, true}}),
              ElementsAre(2, 1, 2, 3, 4, 5));
}

}  // namespace
}  // namespace annulus::comm
