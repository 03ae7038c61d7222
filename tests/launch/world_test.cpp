#include "launch/world.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

#include <map>

namespace annulus::launch::test {
namespace {

using ::testing::HasSubstr;

World detect(const std::map<std::string, std::string>& variables) {
  return detect_world([&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  });
}

TEST(WorldOf, OneWithoutALauncher) {
  const World world = detect({{"SLURM_NTASKS", "8"}, {"SLURM_PROCID", "0"}});
  EXPECT_EQ(world.size, 1);
  EXPECT_FALSE(world.launched());
}

TEST(WorldOf, MpirunWinsInsideASlurmJob) {
  const World world = detect({{"OMPI_COMM_WORLD_RANK", "3"},
                              {"OMPI_COMM_WORLD_SIZE", "4"},
                              {"SLURM_PROCID", "0"},
                              {"SLURM_STEP_NUM_TASKS", "2"}});
  EXPECT_EQ(world.rank, 3);
  EXPECT_EQ(world.size, 4);
  EXPECT_EQ(world.launcher, "mpirun");
}

TEST(WorldOf, SrunTasks) {
  const World world = detect({{"SLURM_PROCID", "1"}, {"SLURM_STEP_NUM_TASKS", "2"}});
  EXPECT_EQ(world.rank, 1);
  EXPECT_EQ(world.size, 2);
  EXPECT_FALSE(detect({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "1"}}).launched());
}

TEST(WorldOf, RefusesGarbage) {
  EXPECT_THAT(refusal([] {
                detect({{"OMPI_COMM_WORLD_RANK", "x"}, {"OMPI_COMM_WORLD_SIZE", "4"}});
              }),
              HasSubstr("OMPI_COMM_WORLD_RANK"));
}

}  // namespace
}  // namespace annulus::launch::test
