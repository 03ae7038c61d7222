#include <annulus/cost.h>
#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(ParseChunks, ReadsPastAndNew) {
  const std::vector<PrefillChunk> chunks = parse_chunks("0:300, 2048:212,2k:1M");
  ASSERT_EQ(chunks.size(), 3U);
  EXPECT_EQ(chunks[0].past, 0);
  EXPECT_EQ(chunks[0].fresh, 300);
  EXPECT_EQ(chunks[1].past, 2048);
  EXPECT_EQ(chunks[1].fresh, 212);
  EXPECT_EQ(chunks[2].past, 2048);
  EXPECT_EQ(chunks[2].fresh, 1048576);
}

TEST(ParseChunks, EmptyTextIsNoChunk) {
  EXPECT_TRUE(parse_chunks("").empty());
  EXPECT_TRUE(parse_chunks("  ").empty());
  EXPECT_TRUE(parse_decode_entries("").empty());
}

TEST(ParseChunks, BadTextNamesTheChunkAndWhatIsAllowed) {
  for (const char* text :
       {"300", "0:300,", ",", "0:", ":5", "0:1:2", "-1:5", "0:+5", "0:3.5", "a:b",
        "0:99999999999999999999", "0:9999999999999999M", "0 :5", "0:5K", "0:k"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT([&] { parse_chunks(text); },
                ThrowsMessage<InvalidArgument>(HasSubstr("must be past:new")));
  }
  EXPECT_THAT([] { parse_chunks("0:300,7"); }, ThrowsMessage<InvalidArgument>(HasSubstr("'7'")));
}

TEST(ParseDecodeEntries, ReadsAllThreeForms) {
  const std::vector<DecodeEntry> entries = parse_decode_entries("80,4x2k, 1/4/1000/37");
  ASSERT_EQ(entries.size(), 3U);
  EXPECT_EQ(entries[0].count, 1);
  EXPECT_EQ(entries[0].kv, 80);
  EXPECT_FALSE(entries[0].beams);
  EXPECT_EQ(entries[1].count, 4);
  EXPECT_EQ(entries[1].kv, 2048);
  EXPECT_TRUE(entries[2].beams);
  EXPECT_EQ(entries[2].prompt_batch, 1);
  EXPECT_EQ(entries[2].decode_batch, 4);
  EXPECT_EQ(entries[2].prompt, 1000);
  EXPECT_EQ(entries[2].generated, 37);
}

TEST(ParseDecodeEntries, BadTextNamesTheEntryAndWhatIsAllowed) {
  for (const char* text : {"x", "4x", "x80", "0x80", "-4x80", "1/2/3", "1/2/3/4/5", "0/4/10/2",
                           "1/0/10/2", "1/4/-1/2", "80;90", "80,", "4x80x2", "1.5"}) {
    SCOPED_TRACE(text);
    EXPECT_THAT([&] { parse_decode_entries(text); },
                ThrowsMessage<InvalidArgument>(HasSubstr("must be a key count (80)")));
  }
}

TEST(Names, AreReadBack) {
  for (const Stage stage : {Stage::prefill, Stage::decode, Stage::chunked}) {
    EXPECT_EQ(parse_stage(name_of(stage)), stage);
  }
  for (const CostMode mode : {CostMode::original, CostMode::corrected}) {
    EXPECT_EQ(parse_cost_mode(name_of(mode)), mode);
  }
  EXPECT_THAT([] { parse_stage("Prefill"); },
              ThrowsMessage<InvalidArgument>(HasSubstr("'prefill', 'decode' or 'chunked'")));
  EXPECT_THAT([] { parse_cost_mode("exact"); },
              ThrowsMessage<InvalidArgument>(HasSubstr("'original' or 'corrected'")));
}

}  // namespace
}  // namespace annulus
