#include <annulus/cost.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace annulus {
namespace {

using Json = nlohmann::json;

CostRequest small() {
  CostRequest request;
  request.heads = 4;
  request.heads_kv = 2;
  request.layers = 2;
  request.seq = 80;
  request.sp = 2;
  return request;
}

TEST(CostJson, HasTheFieldsAndTypesOfTheSchema) {
  const Json json = Json::parse(to_json(price(small())));
  EXPECT_EQ(json["schema"], "annulus.cost/1");
  EXPECT_EQ(json["stage"], "prefill");
  EXPECT_EQ(json["mode"], "corrected");
  EXPECT_EQ(json["mode_source"], "default");
  for (const char* key : {"sp", "tp", "ep"}) EXPECT_TRUE(json[key].is_number_integer()) << key;
  for (const char* accounting : {"original", "original_x3", "corrected", "corrected_x3"}) {
    for (const char* key :
         {"logit_macs_rank_layer", "attend_macs_rank_layer", "attention_macs_rank_model"}) {
      EXPECT_TRUE(json[accounting][key].is_number_integer()) << accounting << " " << key;
    }
  }
  for (const std::string pass : {"", "backward_"}) {
    EXPECT_TRUE(json["exact"][pass + "full_flops_group_layer"].is_number_integer());
    EXPECT_TRUE(json["exact"][pass + "masked_flops_group_layer"].is_number_integer());
    EXPECT_EQ(json["exact"][pass + "masked_flops_rank_layer"].size(), 2U);
  }
  EXPECT_EQ(json["problem"]["heads"], 4);
  EXPECT_EQ(json["problem"]["seq"], 80);
}

TEST(CostJson, HoldsTheGoldenCounts) {
  const Json json = Json::parse(to_json(price(small())));
  EXPECT_EQ(json["original"]["logit_macs_rank_layer"], 819200);
  EXPECT_EQ(json["corrected_x3"]["attention_macs_rank_model"], 19660800);
  EXPECT_EQ(json["exact"]["full_flops_group_layer"], 6553600);
  EXPECT_EQ(json["exact"]["masked_flops_group_layer"], 3317760);
}

TEST(CostJson, LargeCountsStayIntegers) {
  CostRequest request = small();
  request.seq = (1 << 24) + 1;
  request.sp = 1;
  const CostReport report = price(request);
  ASSERT_GT(report.corrected_x3.attention_macs_rank_model, std::int64_t{1} << 53);
  const Json json = Json::parse(to_json(report));
  EXPECT_EQ(json["corrected_x3"]["attention_macs_rank_model"].get<std::int64_t>(),
            report.corrected_x3.attention_macs_rank_model);
}

TEST(CostJson, WhatWasNotRunIsNull) {
  CostReport report = price(small());
  Json json = Json::parse(to_json(report));
  EXPECT_TRUE(json.contains("planned") && json["planned"].is_null());
  EXPECT_TRUE(json.contains("executed") && json["executed"].is_null());
  EXPECT_TRUE(json.contains("predicted") && json["predicted"].is_null());
  EXPECT_EQ(json["hardware"]["unavailable"], "no hardware counters on this back end");
  report.hardware_unavailable.clear();
  json = Json::parse(to_json(report));
  EXPECT_TRUE(json.contains("hardware") && json["hardware"].is_null());
}

TEST(CostJson, CountedFlopsAreListedByRankAndPass) {
  CostReport report = price(small());
  report.planned.flops_rank_layer = {7, 8};
  report.executed.flops_rank_layer = {9, 10};
  report.executed.backward_flops_rank_layer = {11, 12};
  const Json json = Json::parse(to_json(report));
  EXPECT_EQ(json["planned"], Json({{"flops_rank_layer", {7, 8}}}));
  EXPECT_EQ(json["executed"]["flops_rank_layer"], Json({9, 10}));
  EXPECT_EQ(json["executed"]["backward_flops_rank_layer"], Json({11, 12}));
}

TEST(CostJson, ProblemHoldsTheShapeOfTheStage) {
  CostRequest request = small();
  request.stage = Stage::decode;
  request.prompt = 80;
  request.generated = 5;
  Json json = Json::parse(to_json(price(request)));
  EXPECT_EQ(json["problem"]["prompt"], 80);
  EXPECT_EQ(json["problem"]["generated"], 5);
  EXPECT_EQ(json["problem"]["beam"], 1);
  request.stage = Stage::chunked;
  request.chunks = parse_chunks("2048:212");
  request.decodes = parse_decode_entries("4x80,1/4/1000/37");
  json = Json::parse(to_json(price(request)));
  EXPECT_EQ(json["problem"]["chunks"][0]["past"], 2048);
  EXPECT_EQ(json["problem"]["chunks"][0]["new"], 212);
  EXPECT_EQ(json["problem"]["decode_kv"][0]["count"], 4);
  EXPECT_EQ(json["problem"]["decode_kv"][0]["kv"], 80);
  EXPECT_EQ(json["problem"]["decode_kv"][1]["decode_batch"], 4);
}

TEST(CostJson, PredictedTimeSaysItIsAnalytic) {
  CostRequest request = small();
  request.peak_tflops = 2;
  const Json json = Json::parse(to_json(price(request)));
  EXPECT_EQ(json["predicted"]["source"], "analytic");
  EXPECT_EQ(json["predicted"]["accounting"], "corrected");
  EXPECT_DOUBLE_EQ(json["predicted"]["attention_s"], 6553600.0 / 1e12);
}

}  // namespace
}  // namespace annulus
