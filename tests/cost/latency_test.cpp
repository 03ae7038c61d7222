// What the latency model claims beyond the goldens: what a mode may change, why modes agree, bad
// input.
#include "tests/cost/latency_goldens.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LatencyRequest llama(std::int64_t seq, std::int64_t sp) {
  LatencyRequest request = request_called("U-041");  // llama2_7b on one H100
  request.seq = seq;
  request.sp = sp;
  request.softmax_factor = 3;
  return request;
}

std::string all_reasons(const ModeComparison& comparison) {
  std::string text;
  for (const std::string& reason : comparison.reasons) text += reason + "\n";
  return text;
}

TEST(Latency, ModeChangesNoOperatorButLogitAndAttend) {
  for (const char* id : {"U-010", "U-011", "U-025", "U-031", "U-038", "U-050", "U-053"}) {
    SCOPED_TRACE(id);
    LatencyRequest request = request_called(id);
    for (const std::int64_t sp : {1, 2, 4}) {
      request.sp = sp;
      const ModeComparison c = compare_modes(request);
      EXPECT_TRUE(c.others_equal);
      ASSERT_EQ(c.original.rows.size(), c.corrected.rows.size());
      for (std::size_t i = 0; i < c.original.rows.size(); ++i) {
        if (c.original.rows[i].is_attention()) continue;
        EXPECT_EQ(c.original.rows[i].macs, c.corrected.rows[i].macs);
        EXPECT_EQ(c.original.rows[i].latency_s(), c.corrected.rows[i].latency_s());
        EXPECT_EQ(c.original.rows[i].sent_elements, c.corrected.rows[i].sent_elements);
      }
      EXPECT_EQ(c.original.linear_s, c.corrected.linear_s);
      EXPECT_EQ(c.original.weight_bytes, c.corrected.weight_bytes);
    }
  }
}

TEST(Latency, ModesAgreeAtSpOneAndSayWhy) {
  const ModeComparison c = compare_modes(llama(80, 1));
  EXPECT_EQ(c.time_ratio, 1);
  EXPECT_EQ(c.flops_ratio, 1);
  EXPECT_EQ(c.original.latency_s, c.upstream.latency_s);  // not even the 3 shows: memory-bound
  EXPECT_NEAR(c.original.latency_s, 3.8112e-3, 5e-8);
  EXPECT_THAT(all_reasons(c), HasSubstr("because sp = 1: 80 // 1 = 80 keys"));
  EXPECT_THAT(all_reasons(c), HasSubstr("changes no time: attention is memory-bound"));
}

TEST(Latency, MemoryBoundAttentionHidesTheFlopsOfCorrected) {
  const ModeComparison c = compare_modes(llama(80, 4));
  EXPECT_EQ(c.attention_flops_ratio, 4);
  EXPECT_LT(c.time_ratio, 1.01);
  EXPECT_GT(c.time_ratio, 1);
  EXPECT_THAT(all_reasons(c), HasSubstr("memory-bound even then"));
  EXPECT_THAT(all_reasons(c), HasSubstr("80 // 4 = 20"));
}

TEST(Latency, LongPromptsAreComputeBoundAndShowBothFactors) {
  const ModeComparison c = compare_modes(llama(4096, 4));
  EXPECT_EQ(c.attention_flops_ratio, 4);
  EXPECT_GT(c.time_ratio, 1.5);
  EXPECT_GT(c.original.attention_s, 2 * c.upstream.attention_s);
  EXPECT_THAT(all_reasons(c), Not(HasSubstr("changes no time")));
  EXPECT_THAT(all_reasons(c), HasSubstr("compute-bound"));
}

TEST(Latency, ChunkedStepsHaveNothingToCorrect) {
  LatencyRequest request = request_called("U-038");
  request.sp = 2;
  const ModeComparison c = compare_modes(request);
  EXPECT_EQ(c.time_ratio, 1);
  EXPECT_THAT(all_reasons(c), HasSubstr("chunked"));
}

TEST(Latency, ModelThatDoesNotFitSaysSoAndOffloadSlowsMemory) {
  LatencyRequest request = request_called("U-022");
  request.offload = false;
  const LatencyReport full = estimate_latency(request);
  EXPECT_FALSE(full.fits);
  EXPECT_FALSE(full.offloaded);
  EXPECT_EQ(full.memory_gib_s, 1600);
  request.offload = true;
  const LatencyReport slow = estimate_latency(request);
  EXPECT_TRUE(slow.offloaded);
  EXPECT_LT(slow.memory_gib_s, 200);
  EXPECT_GT(slow.latency_s, 2 * full.latency_s);
  EXPECT_EQ(slow.macs, full.macs);
}

TEST(Latency, NarrowerNumbersComputeAndMoveFaster) {
  LatencyRequest request = llama(4096, 1);
  const LatencyReport bf16 = estimate_latency(request);
  request.precision = Precision::f32;
  const LatencyReport f32 = estimate_latency(request);
  request.precision = Precision::fp8;
  const LatencyReport fp8 = estimate_latency(request);
  EXPECT_DOUBLE_EQ(f32.compute_only_s, 2 * bf16.compute_only_s);
  EXPECT_DOUBLE_EQ(fp8.weight_bytes, bf16.weight_bytes / 2);
  EXPECT_EQ(parse_precision(name_of(Precision::int4)), Precision::int4);
  EXPECT_THROW(parse_precision("bf17"), InvalidArgument);
}

TEST(Latency, RefusesSizesThatCannotBe) {
  const auto refuses = [](auto change, const char* names) {
    LatencyRequest request = llama(80, 1);
    change(request);
    try {
      estimate_latency(request);
      ADD_FAILURE() << "accepted: " << names;
    } catch (const InvalidArgument& error) {
      EXPECT_THAT(error.what(), HasSubstr(names));
    }
  };
  refuses([](LatencyRequest& r) { r.model.hidden = 0; }, "hidden 0");
  refuses([](LatencyRequest& r) { r.model.heads_kv = 5; }, "multiple of heads_kv 5");
  refuses([](LatencyRequest& r) { r.tp = 0; }, "tp 0");
  refuses([](LatencyRequest& r) { r.system.tflops = 0; }, "tflops 0");
  refuses([](LatencyRequest& r) { r.system.efficiency = -1; }, "efficiency -1");
  refuses([](LatencyRequest& r) { r.pp = 33; }, "32 layers");
  refuses([](LatencyRequest& r) { r.model.layers = 9, r.pp = 8; }, "leave the last stage -5");
  refuses([](LatencyRequest& r) { r.seq = std::int64_t{1} << 40; }, "2^63");
}

TEST(Latency, ReportsNameEveryStageAndParse) {
  LatencyRequest decode = request_called("U-053");
  const std::vector<ModeComparison> stages{compare_modes(llama(80, 2)), compare_modes(decode)};
  const std::string text = to_text(stages);
  EXPECT_THAT(text, HasSubstr("time to first token: prefill of 1 x 80 tokens"));
  EXPECT_THAT(text, HasSubstr("time per token: decode, 8 sequences x 1 beams, 4096 + 256 keys"));
  EXPECT_THAT(text, HasSubstr("* Logit"));
  const Json json = Json::parse(to_json(stages));
  EXPECT_EQ(json["schema"], "annulus.latency/1");
  EXPECT_EQ(json["stages"].size(), 2U);
  EXPECT_EQ(json["stages"][0]["measure"], "time_to_first_token");
  EXPECT_EQ(json["stages"][0]["attention_flops_ratio"], 2);
  EXPECT_EQ(json["stages"][1]["original"]["operators"].size(), 9U);
}

}  // namespace
}  // namespace annulus::test
