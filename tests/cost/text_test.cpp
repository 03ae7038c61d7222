#include <annulus/cost.h>

#include "runtime/cost/format.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

namespace annulus {
namespace {

using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

CostRequest llama_70b_sp2() {
  CostRequest request;
  request.heads = 64;
  request.heads_kv = 8;
  request.head_dim = request.head_dim_v = 128;
  request.layers = 80;
  request.seq = 4097;
  request.sp = 2;
  request.tp = 8;
  return request;
}

/// Lines joined and runs of spaces made one, so that a line break does not hide a sentence.
std::string flat(const std::string& text) {
  std::istringstream words(text);
  std::string result;
  for (std::string word; words >> word;) result += word + ' ';
  return result;
}

void expect_fits(const std::string& text) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 110U) << line;
    EXPECT_TRUE(line.empty() || line.back() != ' ') << line;
  }
}

TEST(CostText, HoldsEveryIntegerOfTheReport) {
  const CostReport report = price(llama_70b_sp2());
  const std::string text = to_text(report);
  for (const MacAccounting& macs :
       {report.original, report.original_x3, report.corrected, report.corrected_x3}) {
    for (const std::int64_t count : {macs.logit_macs_rank_layer, macs.attend_macs_rank_layer,
                                     macs.attention_macs_rank_model}) {
      EXPECT_THAT(text, HasSubstr(fmt::format(" {}", count)));
    }
  }
  const ExactAccounting& exact = report.exact;
  for (const std::int64_t count :
       {exact.full_flops_group_layer, exact.masked_flops_group_layer,
        exact.backward_full_flops_group_layer, exact.backward_masked_flops_group_layer,
        exact.masked_flops_rank_layer[0], exact.masked_flops_rank_layer[1]}) {
    EXPECT_THAT(text, HasSubstr(fmt::format(" {}", count)));
  }
  expect_fits(text);
}

TEST(CostText, SaysBasisAndUnitOfEveryRow) {
  const std::string text = to_text(price(llama_70b_sp2()));
  EXPECT_THAT(text, ContainsRegex("accounting +basis +unit +logit +attend +layer +model"));
  EXPECT_THAT(text, ContainsRegex("original //sp +rank +MAC "));
  EXPECT_THAT(text, ContainsRegex("original x3 +rank +MAC "));
  EXPECT_THAT(text, ContainsRegex("corrected \\* +rank +MAC "));
  EXPECT_THAT(text, ContainsRegex("corrected x3 +rank +MAC "));
  EXPECT_THAT(text, ContainsRegex("exact full +group +FLOP "));
  EXPECT_THAT(text, ContainsRegex("exact masked +group +FLOP "));
  EXPECT_THAT(text, ContainsRegex("exact masked +rank +FLOP +forward"));
  EXPECT_THAT(text, ContainsRegex("executed +rank +FLOP +forward +not run"));
  EXPECT_THAT(text, HasSubstr("hardware: unavailable: no hardware counters on this back end"));
}

TEST(CostText, ExplainsEachGap) {
  const std::string text = flat(to_text(price(llama_70b_sp2())));
  EXPECT_THAT(text, HasSubstr("causal, mask exact masked / full = 0.5001"));
  EXPECT_THAT(text, HasSubstr("tile padding executed / exact masked: not run"));
  EXPECT_THAT(text, HasSubstr("tp 8 x ep 1 x sp 2 ranks = 1.10 TFLOP = 2 x exact full"));
  EXPECT_THAT(text, HasSubstr("//sp drops 4097 mod 2 = 1 keys of every query"));
  EXPECT_THAT(text, HasSubstr("softmax x3 multiplies both matrix products (+200 %)"));
  EXPECT_THAT(text, HasSubstr("2 x corrected x3, summed over the same ranks = 12 x exact masked"));
  EXPECT_THAT(text, HasSubstr("no sequence-parallel communication"));
}

TEST(CostText, Seq80IsSixTimesExactCausal) {
  CostRequest request = llama_70b_sp2();
  request.seq = 80;
  request.sp = 1;
  EXPECT_THAT(flat(to_text(price(request))), HasSubstr("same ranks = 5.926 x exact masked"));
}

TEST(CostText, NoteOnCommunicationOnlyWithSp) {
  CostRequest request = llama_70b_sp2();
  request.sp = 1;
  EXPECT_THAT(to_text(price(request)), Not(HasSubstr("no sequence-parallel communication")));
}

TEST(CostText, ShowsModeItsSourceAndWhatItDrives) {
  CostRequest request = llama_70b_sp2();
  EXPECT_THAT(to_text(price(request)),
              AllOf(HasSubstr("mode: corrected (default)"), HasSubstr("not predicted")));
  request.mode = CostMode::original;
  request.mode_source = "command line";
  request.peak_tflops = 989;
  request.peak_source = "h100";
  const std::string text = to_text(price(request));
  EXPECT_THAT(text, HasSubstr("mode: original (command line)"));
  EXPECT_THAT(text, ContainsRegex("original //sp \\* +rank"));
  EXPECT_THAT(text, HasSubstr("/ 989 TFLOP/s (h100) = 2.78 ms;"));
  expect_fits(text);
}

TEST(CostText, WarnsWhenExecutedIsBelowExact) {
  CostReport report = price(llama_70b_sp2());
  report.executed.flops_rank_layer = report.exact.masked_flops_rank_layer;
  EXPECT_THAT(to_text(report),
              AllOf(HasSubstr("executed forward >= exact masked: ok"),
                    HasSubstr("executed / exact masked = 1:"), Not(HasSubstr("WARNING"))));
  report.executed.flops_rank_layer[1] -= 1;
  EXPECT_THAT(to_text(report), HasSubstr("WARNING:"));
  expect_fits(to_text(report));
}

TEST(CostText, AllTpTimesSpRanksAreComparedWithTheGroup) {
  CostReport report = price(llama_70b_sp2());
  const ExactAccounting& exact = report.exact;
  report.planned.flops_rank_layer.assign(16, exact.masked_flops_group_layer / 16);
  EXPECT_THAT(to_text(report), HasSubstr("planned forward >= exact masked: ok"));
  report.planned.flops_rank_layer.pop_back();
  report.planned.flops_rank_layer.push_back(0);
  EXPECT_THAT(to_text(report), HasSubstr("WARNING:"));
}

TEST(CostText, LargestCountsFitTheWidth) {
  CostRequest request = llama_70b_sp2();
  request.seq = 1 << 20;
  request.batch = 2;
  const std::string text = to_text(price(request));
  expect_fits(text);
  EXPECT_THAT(text, HasSubstr(std::to_string(price(request).corrected_x3.logit_macs_rank_layer)));
  EXPECT_THAT(text, HasSubstr(">= 2^63"));
}

TEST(CostText, DecodeAndChunkedDescribeThemselves) {
  CostRequest request = llama_70b_sp2();
  request.stage = Stage::decode;
  request.prompt = 81;
  request.generated = 512;
  request.beam = 4;
  std::string text = to_text(price(request));
  EXPECT_THAT(text, AllOf(HasSubstr("prompt 81, generated 512, beam 4"), HasSubstr("own key")));
  expect_fits(text);
  request.stage = Stage::chunked;
  request.chunks = parse_chunks("0:300,2048:212");
  request.decodes = parse_decode_entries("80,4x2048,1/4/1000/37");
  text = to_text(price(request));
  EXPECT_THAT(text, HasSubstr("chunks [0:300, 2048:212], decode_kv [80, 4x2048, 1/4/1000/37]"));
  expect_fits(text);
}

TEST(CostText, HeadsThatDoNotDivideAreExplained) {
  CostRequest request = llama_70b_sp2();
  request.heads = 24;
  request.tp = 5;
  const std::string text = to_text(price(request));
  EXPECT_THAT(text, HasSubstr("tp x ep = 5 does not divide 24 heads"));
  EXPECT_THAT(text, HasSubstr("GenZ itself stops"));
  expect_fits(text);
}

TEST(Human, RoundsToThreeDigits) {
  EXPECT_EQ(cost::human(0, "FLOP"), "0 FLOP");
  EXPECT_EQ(cost::human(999, "FLOP"), "999 FLOP");
  EXPECT_EQ(cost::human(1000, "FLOP"), "1.00 kFLOP");
  EXPECT_EQ(cost::human(999.6e9L, "MAC"), "1.00 TMAC");
  EXPECT_EQ(cost::human(1374389534720.0L, "FLOP"), "1.37 TFLOP");
  EXPECT_EQ(cost::human(67553994410557440.0L, "FLOP"), "67.6 PFLOP");
  EXPECT_EQ(cost::human(9.223e18L, "FLOP"), "9.22 EFLOP");
}

}  // namespace
}  // namespace annulus
