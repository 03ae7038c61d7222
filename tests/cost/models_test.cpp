// Operators of a model with latent attention and own experts, beside GenZ's count of it.
#include "tests/cost/latency_goldens.h"

#include <annulus/error.h>
#include <annulus/model_comparison.h>
#include <annulus/model_size.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus::test {
namespace {

using ::testing::HasSubstr;

/// config.json of DeepSeek-V3 on one rank, a byte a weight.
LatencyRequest deepseek(Stage stage) {
  LatencyRequest request = request_called("U-020");
  request.tp = request.ep = request.sp = request.pp = 1;
  request.precision = Precision::fp8;
  request.rule = DimsRule::model;
  request.model = deepseek_v3();
  request.stage = stage;
  request.batch = 1;
  request.seq = request.prompt = 64;  // 64 · 8 = 2 tokens for each of 256 experts
  return request;
}

std::int64_t macs_of(const LatencyReport& report, const std::string& name) {
  std::int64_t macs = 0;
  for (const OperatorRow& row : report.rows) macs += row.name == name ? row.repeat * row.macs : 0;
  return macs;
}

TEST(Models, OperatorsWeighAndCostWhatTheModelDoes) {
  const LatencyRequest request = deepseek(Stage::prefill);
  const ModelSize size = size_of({.model = request.model});
  const LatencyReport report = estimate_latency(request);
  EXPECT_EQ(report.weight_bytes, static_cast<double>(size.weights));
  // GenZ's embedding is a product too.
  EXPECT_EQ(report.macs - report.attention_macs, 64 * (size.active_weights + size.embedding));
  EXPECT_EQ(macs_of(report, "Logit"), 61LL * 64 * 64 * 128 * 192);
  EXPECT_EQ(macs_of(report, "Attend"), 61LL * 64 * 64 * 128 * 128);
  EXPECT_EQ(report.attention_macs, 61LL * 64 * 64 * 128 * 320);
}

TEST(Models, DecodingMeetsTheCachedLatent) {
  LatencyRequest request = deepseek(Stage::decode);
  request.generated = 5;
  const LatencyReport report = estimate_latency(request);
  EXPECT_EQ(report.cache_bytes, 61.0 * 576 * (64 + 5));
  EXPECT_EQ(macs_of(report, "Logit Pre"), 61LL * 128 * 64 * 576);
  EXPECT_EQ(macs_of(report, "Attend Suf"), 61LL * 128 * 5 * 512);
  const ModelSize size = size_of({.model = request.model});
  EXPECT_EQ(report.macs - report.attention_macs, size.active_weights);
}

TEST(Models, RanksShareHeadsButNoLatent) {
  LatencyRequest request = deepseek(Stage::decode);
  request.tp = 8;
  const LatencyReport report = estimate_latency(request);
  EXPECT_EQ(report.cache_bytes, 61.0 * 576 * 64);  // each rank has it whole
  EXPECT_EQ(macs_of(report, "Logit Pre"), 61LL * 16 * 64 * 576);
  EXPECT_EQ(macs_of(report, "KV down"), 61LL * 576 * 7168);
  EXPECT_EQ(macs_of(report, "KV up"), 61LL * 512 * 16 * 256);
}

TEST(Models, ValuesOfAnotherWidthWithoutLatents) {
  LatencyRequest request = deepseek(Stage::prefill);
  request.model.latent = {};
  request.model.heads_kv = 4;
  const LatencyReport report = estimate_latency(request);
  EXPECT_EQ(macs_of(report, "QKV"), 61LL * 64 * 7168 * (128 * 192 + 4 * (192 + 128)));
  EXPECT_EQ(macs_of(report, "Out Proj"), 61LL * 64 * 7168 * 128 * 128);
  EXPECT_EQ(report.weight_bytes, static_cast<double>(size_of({.model = request.model}).weights));
  request.rule = DimsRule::genz;  // experts as wide as the dense FFN, none shared
  const LatencyReport genz = estimate_latency(request);
  EXPECT_EQ(macs_of(genz, "Attend"), macs_of(report, "Attend"));
  EXPECT_EQ(macs_of(genz, "shared down"), 0);
  EXPECT_EQ(macs_of(report, "shared down"), 58LL * 64 * 2048 * 7168);
}

TEST(Models, BesideGenzsDeepseek) {
  const LatencyRequest request = deepseek(Stage::prefill);
  LatencyRequest legacy = request;
  legacy.rule = DimsRule::genz;
  legacy.model = request_called("U-020").model;
  const std::vector<ModelComparison> stages{{compare_modes(request), compare_modes(legacy)}};
  const Json json = Json::parse(to_json(stages));
  EXPECT_EQ(json["schema"], "annulus.models/1");
  const Json& model = json["stages"][0]["model"]["upstream"];
  const Json& genz = json["stages"][0]["legacy"]["upstream"];
  EXPECT_EQ(model["parts"]["attention"]["macs_rank"], 61LL * 64 * 64 * 128 * 320);
  EXPECT_EQ(genz["parts"]["attention"]["macs_rank"], 61LL * 64 * 64 * 128 * 112);
  EXPECT_EQ(genz["parts"]["ffn"]["macs_rank"],
            61LL * 64 * 7168 * 256 + 61LL * 2 * 256 * 3 * 7168 * 18432);
  EXPECT_EQ(model["parts"]["ffn"]["macs_rank"],
            3LL * 64 * 3 * 7168 * 18432 + 58LL * 64 * 7168 * (256 + 9 * 3 * 2048));
  for (const Json& side : {model, genz}) {
    std::int64_t macs = 0;
    double seconds = 0;
    for (const Json& part : side["parts"]) {
      macs += part["macs_rank"].get<std::int64_t>();
      seconds += part["latency_s"].get<double>();
    }
    EXPECT_EQ(macs, side["macs_rank"].get<std::int64_t>());
    EXPECT_NEAR(seconds, side["latency_s"].get<double>(), 1e-12);
  }
  EXPECT_EQ(json["differences"].size(), 6U);
  const std::string text = to_text(stages);
  EXPECT_THAT(text, HasSubstr("2.857"));  // 320 over 2 · 56
  EXPECT_THAT(text, HasSubstr("head_dim 192 (values 128) against 56"));
}

TEST(Models, RefusesLatentsThatCannotBe) {
  LatencyRequest request = deepseek(Stage::prefill);
  request.model.latent.rope = 193;
  EXPECT_THROW(estimate_latency(request), InvalidArgument);
  request.model.latent.rope = 64;
  request.model.head_dim_v = -1;
  EXPECT_THROW(estimate_latency(request), InvalidArgument);
}

}  // namespace
}  // namespace annulus::test
