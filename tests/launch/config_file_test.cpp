#include "launch/options/sources.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class ConfigFile : public Scratch {
 protected:
  Settings read(std::string_view text) const {
    Settings settings;
    read_config_file(write("a.cfg", text), settings);
    return settings;
  }
};

TEST_F(ConfigFile, ReadsSectionsCommentsAndBlanks) {
  const Settings settings = read(
      "# a comment\n\n[problem]\nseq = 8k   # tokens\n  heads=24\n[run]\r\nstrict = true\r\n"
      "[problem]\nheads_kv = 8");
  EXPECT_EQ(settings.integer("seq"), 8192);
  EXPECT_EQ(settings.integer("heads"), 24);
  EXPECT_EQ(settings.integer("heads_kv"), 8);
  EXPECT_TRUE(settings.flag("strict"));
  EXPECT_EQ(settings.where("seq"), (folder() / "a.cfg").string() + ":4: seq");
  EXPECT_EQ(settings.source("seq"), "file");
}

struct BadFile {
  const char* text;
  const char* at;
  const char* holds;
};

TEST_F(ConfigFile, RefusesAndNamesTheLine) {
  const BadFile files[] = {
      {"[problem]\nseq = 8kk\n", ":2: seq: '8kk'", "whole number"},
      {"[problem]\nseq = -8\n", ":2: seq: '-8'", "from 1"},
      {"[problem]\nseq =\n", ":2: ", "empty"},
      {"[problem]\nseq = 1\nseq = 2\n", ":3: seq: ", "line 2"},
      {"[problem]\nseq = 1\n[problem]\nseq = 2\n", ":4: seq: ", "line 2"},
      {"[problem]\nsek = 1\n", ":2: sek: ", "did you mean seq?"},
      {"[problem]\nseq-kv = 1\n", ":2: seq-kv: ", "did you mean seq_kv?"},
      {"[run]\nseq = 1\n", ":2: seq: ", "belongs to [problem], not to [run]"},
      {"seq = 1\n", ":1: seq: ", "no section"},
      {"[problem\nseq = 1\n", ":1: '[problem'", "cut off"},
      {"[banana]\nseq = 1\n", ":1: '[banana]'", "[parallel]"},
      {"[problem]\nseq 8\n", ":2: 'seq 8'", "key = value"},
      {"[problem]\n= 8\n", ":2: ", ""},
      {"[run]\nstrict\n", ":2: 'strict'", "key = value"},
      {"[problem]\nseq = 8k, 16k\n", ":2: seq: ", "not built yet"},
      {"", ": 'FILE' holds no key", ""},
      {"# nothing\n[run]\n", ": 'FILE' holds no key", ""},
  };
  for (const BadFile& file : files) {
    const std::string path = (folder() / "a.cfg").string();
    std::string at = file.at;
    if (const auto f = at.find("FILE"); f != std::string::npos) {
      at = "--config" + at.replace(f, 4, path);
    } else {
      at = path + at;
    }
    EXPECT_THAT(refusal([&] { read(file.text); }), AllOf(StartsWith(at), HasSubstr(file.holds)))
        << file.text;
  }
}

TEST_F(ConfigFile, PathsAreRelativeToTheFile) {
  write("models/m.json", "{}");
  const auto file = write("a.cfg",
                          "[problem]\nmodel = models/m.json\ndocuments = @d.txt\n"
                          "[report]\njson = /abs/x.json\n");
  Settings settings;
  read_config_file(file, settings);
  EXPECT_EQ(settings.path("model"), folder() / "models/m.json");
  EXPECT_EQ(settings.beside("documents", "d.txt"), folder() / "d.txt");
  EXPECT_EQ(settings.path("json"), "/abs/x.json");
}

TEST_F(ConfigFile, CommandLineBeatsFileBeatsEnvironmentBeatsModel) {
  write("m.json", R"({"num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128,
                      "num_hidden_layers": 28})");
  const std::string file =
      write("a.cfg", "[problem]\nmodel = m.json\nseq = 2\nheads = 2\nbatch = 2\n").string();
  const char* environment[] = {"ANNULUS_SEQ=3", "ANNULUS_HEADS=3", "ANNULUS_BATCH=3",
                               "ANNULUS_HEADS_KV=3", nullptr};
  Settings settings;
  read_options({"--config", file, "--seq", "1"}, environment, settings);
  EXPECT_EQ(settings.integer("seq"), 1);
  EXPECT_EQ(settings.integer("heads"), 2);
  EXPECT_EQ(settings.integer("heads_kv"), 3);
  EXPECT_EQ(settings.integer("head_dim"), 128);
  EXPECT_EQ(settings.where("seq"), "--seq");
  EXPECT_EQ(settings.where("batch"), file + ":5: batch");
  EXPECT_EQ(settings.where("heads_kv"), "ANNULUS_HEADS_KV");
  EXPECT_EQ(settings.where("head_dim"), (folder() / "m.json").string() + ": head_dim");
}

TEST_F(ConfigFile, EveryCommittedFileIsRead) {
  int files = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(std::filesystem::path(ANNULUS_SOURCE_DIR) / "configs")) {
    if (entry.path().extension() != ".cfg") continue;
    Settings settings;
    const char* const none = nullptr;
    EXPECT_NO_THROW(read_options({"--config", entry.path().string()}, &none, settings))
        << entry.path();
    EXPECT_TRUE(settings.has("seq")) << entry.path();
    ++files;
  }
  EXPECT_GE(files, 5);
}

}  // namespace
}  // namespace annulus::launch::test
