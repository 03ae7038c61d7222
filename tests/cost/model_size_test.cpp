// Weights by kind of layer: published totals, GenZ's own weights, and the reasons why they differ.
#include "tests/cost/latency_goldens.h"

#include <annulus/error.h>
#include <annulus/model_size.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace annulus::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

ModelSizeRequest deepseek() { return {.model = deepseek_v3()}; }

ModelSizeRequest in_genz(const char* point) { return {.model = request_called(point).model}; }

double total(ModelSizeRequest request, DimsRule rule = DimsRule::model) {
  request.rule = rule;
  return static_cast<double>(size_of(request).weights);
}

TEST(ModelSize, PublishedTotals) {
  EXPECT_NEAR(total(deepseek()), 671.0e9, 0.1e9);  // norms left out
  EXPECT_NEAR(static_cast<double>(size_of(deepseek()).active_weights), 37e9, 0.5e9);
  EXPECT_NEAR(total(in_genz("U-041")), 6.738e9, 0.001e9);  // Llama-2-7B
  EXPECT_NEAR(total(in_genz("U-016")), 46.70e9, 0.005e9);  // Mixtral 8x7B
  EXPECT_NEAR(static_cast<double>(size_of(in_genz("U-016")).active_weights), 12.7e9, 0.1e9);
  EXPECT_EQ(size_of(deepseek()).cache_elements, 61 * 576);
}

TEST(ModelSize, ByKindByHand) {
  const ModelSize size = size_of(deepseek());
  ASSERT_EQ(size.kinds.size(), 2U);
  EXPECT_EQ(size.kinds[0].ffn, 3 * 7168LL * 18432);
  EXPECT_EQ(size.kinds[1].ffn, 7168LL * 256 + (256 + 1) * 3 * 7168LL * 2048);
  EXPECT_EQ(size.kinds[1].active_ffn, 7168LL * 256 + (8 + 1) * 3 * 7168LL * 2048);
  EXPECT_EQ(size.kinds[0].attention, 7168LL * 1536 + 1536LL * 128 * 192 + 7168LL * 576 +
                                         512LL * 128 * 256 + 128LL * 128 * 7168);
  EXPECT_EQ(size.kinds[0].attention, size.kinds[1].attention);
}

TEST(ModelSize, GenzIsWhatItsLatencyModelWeighs) {
  const ModelSizeRequest legacy = in_genz("U-020");
  EXPECT_NEAR(total(legacy, DimsRule::genz), 6.20e12, 0.005e12);
  EXPECT_NEAR(total(legacy, DimsRule::model), 0.720e12, 0.0005e12);
  LatencyRequest request = request_called("U-020");
  request.tp = request.ep = 1;
  request.precision = Precision::fp8;  // a byte a weight
  EXPECT_EQ(estimate_latency(request).weight_bytes, total(legacy, DimsRule::genz));
  request.stage = Stage::decode;
  request.prompt = 80;
  // decode has no embedding row
  EXPECT_EQ(estimate_latency(request).weight_bytes,
            total(legacy, DimsRule::genz) - static_cast<double>(size_of(legacy).embedding));
  request.stage = Stage::chunked;
  request.chunks = {{0, 512}};
  EXPECT_EQ(estimate_latency(request).weight_bytes, total(legacy, DimsRule::model));
}

TEST(ModelSize, DifferencesSayWhichAndBy) {
  const auto lines = differences({.model = deepseek(), .legacy = in_genz("U-020")});
  EXPECT_THAT(
      lines,
      ElementsAre(HasSubstr("head_dim 192 (values 128) against 56: GenZ takes hidden / heads"),
                  HasSubstr("576 cached elements a token and layer against 224"),
                  HasSubstr("3 dense + 58 moe layers against 61 moe"),
                  HasSubstr("Experts 2048 wide against 18432 in prefill and decode"),
                  HasSubstr("1 shared expert(s) of width 2048 against none")));
  EXPECT_THAT(lines[3], HasSubstr("9.2"));  // 6.20e12 over 0.671e12
  EXPECT_THAT(differences({.model = in_genz("U-016"), .legacy = in_genz("U-016")}), IsEmpty());
  EXPECT_THAT(differences({.model = in_genz("U-041"), .legacy = in_genz("U-041")}), IsEmpty());
}

TEST(ModelSize, ReportsHoldTheThreeColumns) {
  const SizeComparison c{.model = deepseek(), .legacy = in_genz("U-020")};
  const Json json = Json::parse(to_json(c));
  EXPECT_EQ(json["schema"], "annulus.sizes/1");
  EXPECT_EQ(json["model"]["weights"].get<std::int64_t>(), size_of(deepseek()).weights);
  EXPECT_EQ(json["model"]["kinds"][1]["layers"], 58);
  EXPECT_GT(json["genz_prefill_decode"]["weights"].get<std::int64_t>(),
            json["genz_chunked"]["weights"].get<std::int64_t>());
  EXPECT_EQ(json["differences"].size(), 5U);
  EXPECT_THAT(to_text(c), testing::ContainsRegex("all +671.* +6.2.* +72"));
}

TEST(ModelSize, RefusesWhatCannotBe) {
  ModelSizeRequest request = deepseek();
  request.model.hidden = 0;
  EXPECT_THROW(size_of(request), InvalidArgument);
  request = deepseek();
  request.model.latent.rope = 193;
  EXPECT_THROW(size_of(request), InvalidArgument);
  request = deepseek();
  request.model.layers = 60;
  EXPECT_THROW(size_of(request), InvalidArgument);
  request = deepseek();
  request.model.ffn = std::int64_t{1} << 62;
  EXPECT_THROW(size_of(request), InvalidArgument);  // past 2^63
}

}  // namespace
}  // namespace annulus::test
