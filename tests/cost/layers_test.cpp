// Layers by kind: lists, pipelines over them, mixtures of experts beyond the goldens, and the
// policy.
#include "tests/cost/latency_goldens.h"

#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

namespace annulus::test {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

LatencyRequest mixtral(std::int64_t seq) {
  LatencyRequest request = request_called("U-016");
  request.seq = seq;
  return request;
}

/// DeepSeek-V3 as GenZ sizes it, but with its first three layers dense.
LatencyRequest deepseek(Stage stage) {
  LatencyRequest request = request_called("U-020");
  request.stage = stage;
  request.prompt = 80;
  request.offload = false;  // one memory rate, whatever fits
  request.model.layer_kinds = parse_layer_kinds("dense:3,moe:58");
  return request;
}

std::int64_t macs_of(const LatencyReport& report, const std::string& name) {
  std::int64_t macs = 0;
  for (const OperatorRow& row : report.rows) {
    if (row.name == name) macs += row.repeat * row.macs;
  }
  return macs;
}

template <typename Call>
std::string complaint(Call call) {
  try {
    call();
  } catch (const Error& error) {
    return error.what();
  }
  return "none";
}

TEST(LayerKinds, AreParsedInOrderAndNeighboursJoined) {
  const auto groups = parse_layer_kinds("dense:3,moe:50,moe:8");
  ASSERT_EQ(groups.size(), 2U);
  EXPECT_EQ(groups[0].kind, LayerKind::dense);
  EXPECT_EQ(groups[0].count, 3);
  EXPECT_EQ(groups[1].kind, LayerKind::moe);
  EXPECT_EQ(groups[1].count, 58);
}

TEST(LayerKinds, AnUnknownKindIsUnsupportedAndNamesItsLayers) {
  EXPECT_THROW(parse_layer_kinds("mamba:4,moe:1"), Unsupported);
  EXPECT_EQ(complaint([] { parse_layer_kinds("dense:4,mamba:3,moe:1"); }),
            "layers 4 to 6: nobody prices kind 'mamba'; built: dense, moe");
  EXPECT_THAT(complaint([] { parse_layer_kinds("linear_attention:1"); }), HasSubstr("layer 0: "));
  for (const char* text : {"", "dense", "dense:", "dense:0", "dense:-1", ":3", "dense:3,",
                           "dense:3x", "dense:99999999999999999999"}) {
    EXPECT_THROW(parse_layer_kinds(text), InvalidArgument) << text;
  }
  EXPECT_THROW(parse_layer_kinds("dense:9223372036854775807,moe:1"), InvalidArgument);
}

TEST(LayerKinds, EachKindIsPricedByItself) {
  for (const Stage stage : {Stage::prefill, Stage::decode}) {
    LatencyRequest mixed = deepseek(stage);
    LatencyRequest dense = mixed;
    dense.model.layer_kinds = parse_layer_kinds("dense:61");
    LatencyRequest moe = mixed;
    moe.model.layer_kinds = {};
    const LatencyReport of_mixed = estimate_latency(mixed);
    const LatencyReport of_dense = estimate_latency(dense);
    const LatencyReport of_moe = estimate_latency(moe);
    for (const char* name : {"up+gate", "down", "Gate", "QKV", "classifier"}) {
      EXPECT_EQ(61 * macs_of(of_mixed, name),
                3 * macs_of(of_dense, name) + 58 * macs_of(of_moe, name))
          << name;
    }
    EXPECT_EQ(macs_of(of_dense, "Gate"), 0);
    EXPECT_GT(macs_of(of_mixed, "Gate"), 0);
    EXPECT_NEAR(of_mixed.latency_s - of_dense.latency_s,
                58.0 / 61 * (of_moe.latency_s - of_dense.latency_s), 1e-9 * of_moe.latency_s);
  }
}

TEST(LayerKinds, PipelinesCutAcrossKinds) {
  LatencyRequest request = deepseek(Stage::prefill);
  const std::int64_t whole = estimate_latency(request).macs;
  for (const std::int64_t pp : {2, 4, 61}) {
    request.pp = pp;
    const LatencyReport report = estimate_latency(request);
    EXPECT_EQ(report.macs, whole) << pp;
    std::int64_t layers = 0;
    for (const OperatorRow& row : report.rows) layers += row.name == "QKV" ? row.repeat : 0;
    EXPECT_EQ(layers, 61) << pp;
  }
}

TEST(LayerKinds, ListsThatDoNotFitAreRefused) {
  LatencyRequest request = deepseek(Stage::prefill);
  request.model.layer_kinds.back().count = 57;
  EXPECT_THAT(complaint([&] { estimate_latency(request); }),
              HasSubstr("layer_kinds: 60 layers, the model has 61"));
  request.model.layer_kinds.back().count = 58;
  request.model.moe.experts = 1;
  request.ep = 1;
  EXPECT_THAT(complaint([&] { estimate_latency(request); }), HasSubstr("moe layers need experts"));
}

TEST(Experts, WhatCannotBeIsRefused) {
  LatencyRequest request = mixtral(80);
  request.ep = 9;
  EXPECT_THAT(complaint([&] { estimate_latency(request); }),
              HasSubstr("ep 9: there are 8 experts"));
  request.ep = 1;
  request.model.moe.per_token = 9;
  EXPECT_THAT(complaint([&] { estimate_latency(request); }), HasSubstr("there are 8 experts"));
  LatencyRequest dense = request_called("U-041");
  dense.ep = 2;
  EXPECT_THAT(complaint([&] { estimate_latency(dense); }),
              HasSubstr("ep 2: the model has no experts"));
}

TEST(Experts, FewTokensAreFlooredToNoneAsInGenZ) {
  // 2 experts of 8 a token: below 4 tokens an expert gets none, and its weights take no time
  EXPECT_EQ(macs_of(estimate_latency(mixtral(3)), "up+gate"), 0);
  EXPECT_GT(macs_of(estimate_latency(mixtral(4)), "up+gate"), 0);
}

CostRequest attention_of_deepseek() {
  CostRequest request;
  request.heads = request.heads_kv = 128;
  request.head_dim = 192;
  request.head_dim_v = 128;
  request.layers = 61;
  request.seq = 4096;
  request.sp = 4;
  request.peak_tflops = 100;
  request.layer_kinds = parse_layer_kinds("dense:3,moe:58");
  return request;
}

TEST(Policy, IsUniformUnlessAskedForAndThenTakesAModeForEachKind) {
  CostRequest request = attention_of_deepseek();
  const CostReport uniform = price(request);
  EXPECT_EQ(uniform.driving_macs_rank_model, uniform.corrected.attention_macs_rank_model);
  request.policy = CostPolicy::legacy;
  const CostReport legacy = price(request);
  EXPECT_EQ(61 * legacy.driving_macs_rank_model,
            3 * legacy.corrected.attention_macs_rank_model +
                58 * legacy.original.attention_macs_rank_model);
  EXPECT_EQ(legacy.corrected.attention_macs_rank_model,
            uniform.corrected.attention_macs_rank_model);  // rows do not change
  EXPECT_LT(legacy.predicted_attention_s, uniform.predicted_attention_s);
  request.layer_kinds = {};  // no list: all dense
  EXPECT_EQ(price(request).driving_macs_rank_model, uniform.driving_macs_rank_model);
}

TEST(Policy, TheReportSaysWhichWasUsed) {
  CostRequest request = attention_of_deepseek();
  EXPECT_THAT(to_text(price(request)), HasSubstr("mode: corrected (default)"));
  EXPECT_EQ(Json::parse(to_json(price(request)))["policy"], "uniform");
  request.policy = CostPolicy::legacy;
  const std::string text = to_text(price(request));
  EXPECT_THAT(text, HasSubstr("policy: legacy (3 dense layers corrected, 58 moe layers original)"));
  EXPECT_THAT(text, Not(HasSubstr("mode: ")));
  EXPECT_THAT(text, Not(HasSubstr("*")));
  const Json json = Json::parse(to_json(price(request)));
  EXPECT_EQ(json["policy"], "legacy");
  EXPECT_EQ(json["layer_kinds"][0]["mode"], "corrected");
  EXPECT_EQ(json["layer_kinds"][1]["mode"], "original");
  EXPECT_EQ(json["layer_kinds"][1]["layers"], 58);
  EXPECT_EQ(json["predicted"]["accounting"], "legacy");
}

TEST(Policy, LatenciesComeByPolicyToo) {
  LatencyRequest request = request_called("F-076");
  request.policy = CostPolicy::legacy;
  const ModeComparison all_moe = compare_modes(request);
  ASSERT_TRUE(all_moe.by_policy.has_value());
  EXPECT_EQ(all_moe.by_policy->latency_s, all_moe.original.latency_s);
  request.model.layer_kinds = parse_layer_kinds("dense:16,moe:16");
  const ModeComparison half = compare_modes(request);
  EXPECT_EQ(2 * half.by_policy->attention_macs,
            half.original.attention_macs + half.corrected.attention_macs);
  EXPECT_THAT(half.reasons.back(), HasSubstr("Policy legacy"));
  EXPECT_TRUE(Json::parse(to_json({half}))["stages"][0].contains("policy_legacy"));
  request.policy = CostPolicy::uniform;
  EXPECT_FALSE(compare_modes(request).by_policy.has_value());
}

TEST(Policy, ListsThatDoNotFitAreRefused) {
  CostRequest request = attention_of_deepseek();
  request.layers = 60;
  EXPECT_THAT(complaint([&] { price(request); }),
              HasSubstr("layer_kinds: 61 layers, the model has 60"));
}

}  // namespace
}  // namespace annulus::test
