#include "runtime/base/log.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <vector>

namespace annulus {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

struct Line {
  LogLevel level;
  std::string text;
};

LogOptions into(std::vector<Line>& lines, int level = -1) {
  return {.sink =
              [&lines](LogLevel at, std::string_view text) {
                lines.push_back({at, std::string(text)});
              },
          .level = level};
}

TEST(Logger, WritesRankWorldAndHostBeforeTheText) {
  std::vector<Line> lines;
  const Logger logger(into(lines), {.rank = 0, .world = 4, .host = "node%d"});
  logger.info("{} of {}", 3, "these");
  ASSERT_EQ(lines.size(), 1U);
  EXPECT_EQ(lines[0].text, "[0/4 node%d] 3 of these");
  EXPECT_EQ(lines[0].level, LogLevel::info);
}

TEST(Logger, ShowsInfoOnRankZeroAndWarningsOnOthers) {
  std::vector<Line> zero;
  std::vector<Line> one;
  const Logger first(into(zero), {.rank = 0, .world = 2, .host = "h"});
  const Logger second(into(one), {.rank = 1, .world = 2, .host = "h"});
  for (const Logger* logger : {&first, &second}) {
    logger->debug("d");
    logger->info("i");
    logger->warn("w");
    logger->error("e");
  }
  EXPECT_EQ(zero.size(), 3U);
  EXPECT_EQ(one.size(), 2U);
  EXPECT_EQ(one[0].level, LogLevel::warn);
  EXPECT_EQ(one[1].level, LogLevel::error);
}

TEST(Logger, DumpsTheLast200LinesAfterAFailure) {
  std::vector<Line> lines;
  const Logger logger(into(lines), {.rank = 1, .world = 2, .host = "h"});
  for (int i = 0; i < 300; ++i) logger.debug("step {};", i);
  EXPECT_TRUE(lines.empty());
  logger.dump_recent();
  std::string all;
  for (const Line& line : lines) all += line.text + "\n";
  EXPECT_THAT(all, HasSubstr("[1/2 h] step 299;"));
  EXPECT_THAT(all, HasSubstr("step 100;"));
  EXPECT_THAT(all, Not(HasSubstr("step 99;")));
  const std::size_t before = lines.size();
  logger.debug("quiet again");
  EXPECT_EQ(lines.size(), before);
}

TEST(Logger, OffIsSilentEvenInADump) {
  std::vector<Line> lines;
  const Logger logger(into(lines, static_cast<int>(LogLevel::off)), {});
  logger.error("e");
  logger.dump_recent();
  EXPECT_TRUE(lines.empty());
}

TEST(Logger, WritesAFilePerRankFromDebug) {
  const auto dir = std::filesystem::path(::testing::TempDir()) / "annulus-log-test";
  std::filesystem::remove_all(dir);
  std::vector<Line> lines;
  LogOptions options = into(lines);
  options.dir = dir.string();
  const Logger logger(options, {.rank = 5, .world = 8, .host = "h"});
  logger.debug("a detail");
  logger.dump_recent();
  std::ifstream file(dir / "rank-5.log");
  std::stringstream text;
  text << file.rdbuf();
  EXPECT_THAT(text.str(), HasSubstr("[5/8 h] debug: a detail"));
  EXPECT_EQ(text.str().find("a detail"), text.str().rfind("a detail"));
  std::filesystem::remove_all(dir);
}

TEST(Logger, RefusesLevelsAndFilesThatCannotBe) {
  EXPECT_THROW(Logger({.level = 5}, {}), InvalidArgument);
  EXPECT_THROW(Logger({.level = -2}, {}), InvalidArgument);
  EXPECT_THROW(Logger({.dir = "/proc/nowhere"}, {}), InvalidArgument);
}

TEST(Logger, WritesToStandardErrorByDefault) {
  ::testing::internal::CaptureStderr();
  ::testing::internal::CaptureStdout();
  const Logger logger({}, {.rank = 0, .world = 1, .host = "h"});
  logger.warn("careful");
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "[0/1 h] warning: careful\n");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "");
}

}  // namespace
}  // namespace annulus
