#include "launch/options/value.h"

#include <gmock/gmock.h>

namespace annulus::launch {
namespace {

using ::testing::ElementsAre;

struct IntegerCase {
  const char* text;
  bool good;
  std::int64_t value;
};

TEST(Value, ReadsWholeNumbersOnly) {
  const IntegerCase cases[] = {
      {"0", true, 0},
      {"613", true, 613},
      {"64k", true, 65536},
      {"64K", true, 65536},
      {"1M", true, 1 << 20},
      {"2G", true, std::int64_t{2} << 30},
      {"-1", true, -1},
      {"", false, 0},
      {"k", false, 0},
      {"8kk", false, 0},
      {"8 k", false, 0},
      {"1e6", false, 0},
      {"+5", false, 0},
      {"0x10", false, 0},
      {"1.5k", false, 0},
      {"8m", false, 0},
      {" 8", false, 0},
      {"--1", false, 0},
      {"nan", false, 0},
      {"9223372036854775807", true, 9223372036854775807},
      {"9223372036854775808", false, 0},
      {"9007199254740993k", false, 0},
  };
  for (const IntegerCase& c : cases) {
    std::int64_t value = 0;
    EXPECT_EQ(read_integer(c.text, value), c.good) << c.text;
    if (c.good) {
      EXPECT_EQ(value, c.value) << c.text;
    }
  }
}

TEST(Value, ReadsFiniteNumbersOnly) {
  double value = 0;
  EXPECT_TRUE(read_real("0.125", value));
  EXPECT_EQ(value, 0.125);
  EXPECT_TRUE(read_real("1e-3", value));
  for (const char* text : {"nan", "inf", "-inf", "infinity", "1e999", "", "1x", " 1", "1,5"}) {
    EXPECT_FALSE(read_real(text, value)) << text;
  }
}

TEST(Value, ReadsBooleans) {
  bool value = false;
  EXPECT_TRUE(read_boolean("on", value));
  EXPECT_TRUE(value);
  EXPECT_TRUE(read_boolean("0", value));
  EXPECT_FALSE(value);
  EXPECT_FALSE(read_boolean("TRUE!", value));
  EXPECT_FALSE(read_boolean("2", value));
}

TEST(Value, SplitsAndTrims) {
  EXPECT_THAT(split("a, b ,,c", ','), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(split("", ','), ElementsAre(""));
}

TEST(Value, PresetsAreAllowed) {
  for (const Key& key : keys()) {
    if (!key.preset.empty()) {
      EXPECT_EQ(why_not(key, key.preset), "") << key.name;
    }
  }
}

TEST(Value, NearestIsNotFarFetched) {
  const std::vector<std::string> known{"--seq", "--seq-kv", "--heads", "--ulysses-degree"};
  EXPECT_EQ(nearest("--sek", known), "--seq");
  EXPECT_EQ(nearest("--seq_kv", known), "--seq-kv");
  EXPECT_EQ(nearest("--ulysses", known), "--ulysses-degree");
  EXPECT_EQ(nearest("--banana", known), "");
  EXPECT_EQ(nearest(std::string(1000, 'x'), known), "");
}

}  // namespace
}  // namespace annulus::launch
