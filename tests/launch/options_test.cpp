#include "launch/options/help.h"
#include "launch/options/sources.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;
using Words = std::vector<std::string>;

Settings read(const Words& words, std::vector<const char*> environment = {}) {
  Settings settings;
  environment.push_back(nullptr);
  read_options(words, environment.data(), settings);
  return settings;
}

std::string refused(const Words& words, std::vector<const char*> environment = {}) {
  const std::string line = refusal([&] { read(words, environment); });
  EXPECT_THAT(line, Not(HasSubstr("\n")));
  return line;
}

TEST(Options, ReadsEveryWayToWriteAValue) {
  const Settings settings =
      read({"--seq", "8k", "--heads-kv=2", "--window-left", "-1", "--strict", "--softcap", "30"});
  EXPECT_EQ(settings.integer("seq"), 8192);
  EXPECT_EQ(settings.integer("heads_kv"), 2);
  EXPECT_EQ(settings.integer("window_left"), -1);
  EXPECT_TRUE(settings.flag("strict"));
  EXPECT_EQ(settings.real("softcap"), 30.0);
  EXPECT_FALSE(read({"--strict=false"}).flag("strict"));
  EXPECT_FALSE(read({"--strict", "false"}).flag("strict"));
  EXPECT_TRUE(read({"--strict", "--seq", "4"}).flag("strict"));
  EXPECT_TRUE(read({"--json", "-"}).path("json") == "-");
}

TEST(Options, DefaultsAreThoseOfTheTable) {
  const Settings settings = read({});
  EXPECT_EQ(settings.integer("batch"), 1);
  EXPECT_EQ(settings.text("mask"), "causal");
  EXPECT_EQ(settings.text("layout"), "zigzag");
  EXPECT_FALSE(settings.has("seq"));
  EXPECT_FALSE(settings.given("batch"));
  EXPECT_EQ(settings.source("mode"), "default");
}

struct BadCall {
  Words words;
  std::string begins;
  std::string holds;
};

TEST(Options, RefusesEveryTrap) {
  const BadCall calls[] = {
      {{"--sek", "4"}, "--sek: ", "--seq?"},
      {{"--seq_kv", "4"}, "--seq_kv: ", "--seq-kv?"},
      {{"--SEQ", "4"}, "--SEQ: ", "unknown"},
      {{"--iter", "3"}, "--iter: ", "--iterations?"},
      {{"--iter=3"}, "--iter: ", "--iterations?"},
      {{"--banana"}, "--banana: ", "--help"},
      {{"--seq", "-4"}, "--seq: '-4'", "from 1 to 4G"},
      {{"--seq", "0"}, "--seq: '0'", "from 1"},
      {{"--seq", "1e6"}, "--seq: '1e6'", "whole number"},
      {{"--seq", "5G"}, "--seq: '5G'", "4G"},
      {{"--seq", "99999999999999999999"}, "--seq: ", "4G"},
      {{"--seq="}, "--seq: ", "value"},
      {{"--seq", ""}, "--seq: ", "empty"},
      {{"--seq"}, "--seq: ", "value"},
      {{"--json", "--seq", "4"}, "", "--"},
      {{"--batch", "4294967297"}, "--batch: ", "from 1"},
      {{"--batch", "-1"}, "--batch: '-1'", "from 1"},
      {{"--softcap", "nan"}, "--softcap: 'nan'", "off"},
      {{"--softcap", "-3"}, "--softcap: '-3'", "above 0"},
      {{"--timeout-s", "inf"}, "--timeout-s: 'inf'", "above 0"},
      {{"--timeout-s", "0"}, "--timeout-s: '0'", "above 0"},
      {{"--window-left", "-2"}, "--window-left: '-2'", "from -1"},
      {{"--mask", "causal+banana"}, "--mask: 'causal+banana'", "documents"},
      {{"--mask", "causal+"}, "--mask: 'causal+'", "documents"},
      {{"--dtype", "fp8"}, "--dtype: 'fp8'", "f32, f16, bf16"},
      {{"--strict=maybe"}, "--strict: 'maybe'", "true or false"},
      {{"--strict", "banana"}, "--strict: 'banana'", "true or false"},
      {{"--seq", "8k", "banana"}, "'banana': ", "stray"},
      {{"-np", "4"}, "'-np': ", "stray"},
      {{"--", "x"}, "'", "stray"},
      {{"--seq", "4", "--seq", "4"}, "--seq: ", "twice"},
      {{"--seq", "8k,16k"}, "--seq: '8k,16k'", "not built yet"},
      {{"--algorithm", "ring,gather"}, "--algorithm: ", "not built yet"},
      {{"--config", "/nowhere.cfg"}, "--config: '/nowhere.cfg'", "does not exist"},
      {{"--config", "/tmp"}, "--config: '/tmp'", "regular file"},
      {{"--config", "/dev/null"}, "--config: '/dev/null'", "regular file"},
  };
  for (const BadCall& call : calls) {
    EXPECT_THAT(refused(call.words), AllOf(StartsWith(call.begins), HasSubstr(call.holds)))
        << ::testing::PrintToString(call.words);
  }
}

TEST(Options, EnvironmentIsReadAndChecked) {
  EXPECT_EQ(read({}, {"ANNULUS_SEQ=64k", "OTHER=1"}).integer("seq"), 65536);
  EXPECT_EQ(read({}, {"ANNULUS_MODE=original"}).source("mode"), "env");
  EXPECT_THAT(refused({}, {"ANNULUS_SEQ=x"}), StartsWith("ANNULUS_SEQ: 'x'"));
  EXPECT_THAT(refused({}, {"ANNULUS_SEQ="}), StartsWith("ANNULUS_SEQ: "));
  EXPECT_THAT(refused({}, {"ANNULUS_SEK=4"}), HasSubstr("ANNULUS_SEQ?"));
}

TEST(Options, NeedsWhatHasNoDefault) {
  EXPECT_THAT(refusal([] { read({}).integer("seq"); }), StartsWith("--seq: required"));
}

TEST(Options, HelpNamesEveryKey) {
  const std::string help = command_help("bench", "summary");
  for (const Key& key : keys()) EXPECT_THAT(help, HasSubstr("  " + option_of(key.name) + " "));
  EXPECT_THAT(help, HasSubstr("[problem]"));
}

}  // namespace
}  // namespace annulus::launch::test
