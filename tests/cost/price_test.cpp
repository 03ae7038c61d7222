#include <annulus/cost.h>
#include <annulus/error.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <numeric>

namespace annulus {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

CostRequest llama_80() {
  CostRequest request;
  request.heads = request.heads_kv = 32;
  request.head_dim = request.head_dim_v = 128;
  request.layers = 32;
  request.seq = 80;
  return request;
}

std::int64_t sum(const std::vector<std::int64_t>& values) {
  return std::accumulate(values.begin(), values.end(), std::int64_t{0});
}

std::string message_of(const std::function<void(CostRequest&)>& spoil) {
  CostRequest request = llama_80();
  spoil(request);
  try {
    price(request);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Price, RankShareSumsToGroupForEverySp) {
  for (std::int64_t sp = 1; sp <= 97; ++sp) {
    CostRequest request = llama_80();
    request.seq = 613;
    request.tp = 4;
    request.sp = sp;
    const ExactAccounting exact = price(request).exact;
    ASSERT_EQ(exact.masked_flops_rank_layer.size(), static_cast<std::size_t>(sp));
    EXPECT_EQ(4 * sum(exact.masked_flops_rank_layer), exact.masked_flops_group_layer);
    EXPECT_EQ(4 * sum(exact.backward_masked_flops_rank_layer),
              exact.backward_masked_flops_group_layer);
  }
}

TEST(Price, RankShareSumsToGroupInDecodeAndChunked) {
  CostRequest request = llama_80();
  request.sp = 3;
  request.stage = Stage::decode;
  request.batch = 2;
  request.prompt = 100;
  request.generated = 7;
  request.beam = 4;
  ExactAccounting exact = price(request).exact;
  EXPECT_EQ(sum(exact.masked_flops_rank_layer), exact.masked_flops_group_layer);
  request.stage = Stage::chunked;
  request.chunks = {{100, 13}};
  request.decodes = {{.count = 3, .kv = 55}};
  exact = price(request).exact;
  EXPECT_EQ(sum(exact.masked_flops_rank_layer), exact.masked_flops_group_layer);
}

TEST(Price, CallersPairsAreTakenByRank) {
  CostRequest request = llama_80();
  request.batch = 3;
  request.sp = 2;
  request.masked_pairs_by_rank = {10, 4};
  const ExactAccounting exact = price(request).exact;
  const std::int64_t flops_of_pair = std::int64_t{2} * 3 * 32 * 256;
  EXPECT_THAT(exact.masked_flops_rank_layer, ElementsAre(10 * flops_of_pair, 4 * flops_of_pair));
  EXPECT_EQ(exact.masked_flops_group_layer, 14 * flops_of_pair);
  EXPECT_EQ(exact.full_flops_group_layer, 6400 * flops_of_pair);
}

TEST(Price, TpThatDoesNotDivideHeadsPricesTheFullestRank) {
  CostRequest request = llama_80();
  request.heads = request.heads_kv = 5;
  request.tp = 3;
  const CostReport report = price(request);
  const std::int64_t head = std::int64_t{2} * 3240 * 256;
  EXPECT_THAT(report.exact.masked_flops_rank_layer, ElementsAre(2 * head));
  EXPECT_EQ(report.exact.masked_flops_group_layer, 5 * head);
  EXPECT_EQ(report.original.logit_macs_rank_layer, 2 * 6400 * 128);
}

TEST(Price, SpThatDoesNotDivideSeqDropsKeysInOriginalOnly) {
  CostRequest request = llama_80();
  request.seq = 81;
  request.sp = 2;
  const CostReport report = price(request);
  EXPECT_EQ(report.original.logit_macs_rank_layer, 32 * 81 * 40 * 128);
  EXPECT_EQ(report.corrected.logit_macs_rank_layer, 32 * 81 * 81 * 128);
  EXPECT_EQ(report.exact.full_flops_group_layer, std::int64_t{4} * 32 * 81 * 81 * 128);
}

TEST(Price, SeqBelowSpIsNothingInOriginal) {
  CostRequest request = llama_80();
  request.seq = 7;
  request.sp = 8;
  EXPECT_EQ(price(request).original.attention_macs_rank_model, 0);
  EXPECT_GT(price(request).exact.masked_flops_group_layer, 0);
}

TEST(Price, BackwardIsFiveProducts) {
  CostRequest request = llama_80();
  request.head_dim = 192;
  const ExactAccounting exact = price(request).exact;
  EXPECT_EQ(exact.backward_full_flops_group_layer,
            std::int64_t{2} * 32 * 6400 * (3 * 192 + 2 * 128));
  EXPECT_EQ(exact.backward_masked_flops_group_layer,
            std::int64_t{2} * 32 * 3240 * (3 * 192 + 2 * 128));
}

TEST(Price, WidthsOfLogitAndAttendDiffer) {
  CostRequest request = llama_80();
  request.head_dim = 192;
  const MacAccounting macs = price(request).original;
  EXPECT_EQ(macs.logit_macs_rank_layer, 32 * 6400 * 192);
  EXPECT_EQ(macs.attend_macs_rank_layer, 32 * 6400 * 128);
  EXPECT_EQ(macs.attention_macs_rank_model, std::int64_t{32} * 32 * 6400 * 320);
}

TEST(Price, LongerKeysAreSeenBottomRight) {
  CostRequest request = llama_80();
  request.heads = request.heads_kv = 1;
  request.seq = 3;
  request.seq_kv = 5;
  EXPECT_EQ(price(request).exact.masked_flops_group_layer, 2 * 256 * (3 + 4 + 5));
  EXPECT_EQ(price(request).exact.full_flops_group_layer, 2 * 256 * 15);
  request.seq_kv = 2;
  EXPECT_EQ(price(request).exact.masked_flops_group_layer, 2 * 256 * (0 + 1 + 2));
}

TEST(Price, FractionalFactorIsRounded) {
  CostRequest request = llama_80();
  request.heads = request.heads_kv = 1;
  request.layers = 2;
  request.seq = 1;
  request.head_dim = request.head_dim_v = 65;
  request.softmax_factor = 1.5;  // 97.5 is a tie: to even
  const MacAccounting macs = price(request).original_x3;
  EXPECT_EQ(macs.logit_macs_rank_layer, 98);
  EXPECT_EQ(macs.attention_macs_rank_model, 4 * 98);
}

TEST(Price, EmptySequenceIsZero) {
  CostRequest request = llama_80();
  request.seq = 0;
  request.sp = 4;
  const CostReport report = price(request);
  EXPECT_EQ(report.corrected_x3.attention_macs_rank_model, 0);
  EXPECT_THAT(report.exact.masked_flops_rank_layer, ElementsAre(0, 0, 0, 0));
}

TEST(Price, ModeSelectsWhatDrivesPredictedTime) {
  CostRequest request = llama_80();
  request.sp = 2;
  EXPECT_EQ(price(request).predicted_attention_s, 0.0);
  request.peak_tflops = 100;
  const CostReport corrected = price(request);
  EXPECT_DOUBLE_EQ(corrected.predicted_attention_s,
                   2.0 * static_cast<double>(corrected.corrected.attention_macs_rank_model) / 1e14);
  request.mode = CostMode::original;
  EXPECT_DOUBLE_EQ(price(request).predicted_attention_s, corrected.predicted_attention_s / 2);
}

TEST(Price, OverflowThrowsRatherThanWraps) {
  constexpr std::int64_t kHuge = std::numeric_limits<std::int64_t>::max();
  const auto overflows = HasSubstr("pass 2^63 - 1");
  EXPECT_THAT(message_of([](CostRequest& r) { r.seq = kHuge; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.seq = std::int64_t{1} << 32; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.layers = kHuge; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.batch = kHuge; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.tp = r.ep = kHuge; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.softmax_factor = 1e300; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.softmax_factor = 1e18 + 0.5; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) { r.head_dim = kHuge; }), overflows);
  EXPECT_THAT(message_of([](CostRequest& r) {
                r.stage = Stage::decode;
                r.prompt = r.generated = kHuge;
              }),
              overflows);
  EXPECT_THAT(message_of([](CostRequest& r) {
                r.stage = Stage::chunked;
                r.chunks = {{kHuge, 1}};
              }),
              overflows);
}

TEST(Price, BadSizesAreNamedWithTheirValues) {
  EXPECT_THAT(message_of([](CostRequest& r) { r.heads_kv = 5; }),
              HasSubstr("heads 32 is no multiple of heads_kv 5"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.sp = 0; }), HasSubstr("sp 0"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.sp = std::int64_t{1} << 40; }),
              HasSubstr("must be at most 1048576"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.tp = -1; }), HasSubstr("tp -1"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.seq = -80; }), HasSubstr("seq -80"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.beam = 0; }), HasSubstr("beam 0"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.layers = 0; }), HasSubstr("layers 0"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.softmax_factor = -3; }),
              HasSubstr("softmax_factor -3"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.softmax_factor = std::nan(""); }),
              HasSubstr("softmax_factor nan"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.peak_tflops = -1; }), HasSubstr("peak_tflops -1"));
  EXPECT_THAT(message_of([](CostRequest& r) {
                r.masked_pairs_by_rank = {1, 2};
              }),
              HasSubstr("2 entries, sp is 1"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.masked_pairs_by_rank = {6401}; }),
              HasSubstr("6401 unmasked pairs, but only 6400"));
  EXPECT_THAT(message_of([](CostRequest& r) { r.stage = Stage::chunked; }),
              HasSubstr("at least one chunk"));
  EXPECT_THAT(message_of([](CostRequest& r) {
                r.stage = Stage::chunked;
                r.decodes = {{.count = 0, .kv = 3}};
              }),
              HasSubstr("count 0"));
}

}  // namespace
}  // namespace annulus
