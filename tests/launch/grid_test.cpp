#include "launch/options/grid.h"

#include "launch/options/sources.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Settings with(const std::vector<std::string>& words) {
  Settings settings;
  read_command_line(words, settings);
  return settings;
}

std::vector<std::string> labels(const std::vector<GridPoint>& points) {
  std::vector<std::string> all;
  for (const GridPoint& point : points) all.push_back(point.label);
  return all;
}

TEST(Grid, OneValueEachIsOneRun) {
  EXPECT_THAT(labels(grid_of(with({"--seq", "8k", "--documents", "3,5"}))), ElementsAre(""));
}

TEST(Grid, IsEveryCombinationLastKeyFastest) {
  const std::vector<GridPoint> points =
      grid_of(with({"--algorithm", "ring,gather", "--seq", "1k, 2k", "--documents", "3,5"}));
  EXPECT_THAT(labels(points), ElementsAre("seq 1k, algorithm ring", "seq 1k, algorithm gather",
                                          "seq 2k, algorithm ring", "seq 2k, algorithm gather"));
  EXPECT_EQ(points[2].settings.integer("seq"), 2048);
  EXPECT_EQ(points[1].settings.text("algorithm"), "gather");
  EXPECT_EQ(points[1].settings.text("documents"), "3,5");
  EXPECT_EQ(points[1].settings.where("seq"), "--seq");
}

TEST(Grid, IsBounded) {
  std::string list = "1";
  for (int i = 2; i <= 101; ++i) list.append(",").append(std::to_string(i));
  EXPECT_THAT(refusal([&] {
                grid_of(with({"--seq", list, "--heads", list}));
              }),
              HasSubstr("larger than 10000"));
}

TEST(Grid, IsRefusedWhereOneValueIsNeeded) {
  EXPECT_THAT(refusal([] {
                refuse_grid(with({"--seq", "1,2"}), "mask");
              }),
              HasSubstr("--seq: '1,2' is a list; mask takes one value"));
  EXPECT_THAT(refusal([] { with({"--quiet=true,false"}); }), HasSubstr("--quiet"));
}

}  // namespace
}  // namespace annulus::launch::test
