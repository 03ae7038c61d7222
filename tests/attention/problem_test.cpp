// resolved(): defaults, and errors that hold the values.

#include <annulus/error.h>
#include <annulus/problem.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>

namespace annulus {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string message_of(const std::function<void(Problem&)>& spoil) {
  Problem p;
  p.seq = 16;
  p.heads = 4;
  try {
    spoil(p);
    resolved(p);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(Resolved, FillsDefaults) {
  Problem p;
  p.seq = 9;
  p.heads = 6;
  p.head_dim = 16;
  const Problem r = resolved(p);
  EXPECT_EQ(*r.seq_kv, 9);
  EXPECT_EQ(*r.heads_kv, 6);
  EXPECT_EQ(*r.head_dim_v, 16);
  EXPECT_DOUBLE_EQ(*r.softmax_scale, 0.25);
}

TEST(Resolved, KeepsWhatIsSet) {
  Problem p;
  p.seq = 9;
  p.seq_kv = 0;
  p.heads = 6;
  p.heads_kv = 2;
  p.head_dim_v = 8;
  p.softmax_scale = 3.0;
  const Problem r = resolved(resolved(p));
  EXPECT_EQ(*r.seq_kv, 0);
  EXPECT_EQ(*r.heads_kv, 2);
  EXPECT_EQ(*r.head_dim_v, 8);
  EXPECT_DOUBLE_EQ(*r.softmax_scale, 3.0);
}

TEST(Resolved, NamesTheSizeThatCannotBe) {
  EXPECT_THAT(message_of([](Problem& p) { p.batch = 0; }), HasSubstr("batch 0"));
  EXPECT_THAT(message_of([](Problem& p) { p.seq = -3; }), HasSubstr("seq -3"));
  EXPECT_THAT(message_of([](Problem& p) { p.seq_kv = -1; }), HasSubstr("seq_kv -1"));
  EXPECT_THAT(message_of([](Problem& p) { p.heads = 0; }), HasSubstr("heads 0"));
  EXPECT_THAT(message_of([](Problem& p) { p.heads_kv = 0; }), HasSubstr("heads_kv 0"));
  EXPECT_THAT(message_of([](Problem& p) { p.head_dim = 0; }), HasSubstr("head_dim 0"));
  EXPECT_THAT(message_of([](Problem& p) { p.head_dim_v = -8; }), HasSubstr("head_dim_v -8"));
  EXPECT_THAT(message_of([](Problem& p) { p.seq = std::int64_t{1} << 50; }), HasSubstr("seq 112"));
  EXPECT_THAT(message_of([](Problem& p) { p.heads_kv = 3; }),
              AllOf(HasSubstr("heads 4"), HasSubstr("heads_kv 3")));
}

TEST(Resolved, NamesTheNumberThatCannotBe) {
  EXPECT_THAT(message_of([](Problem& p) { p.dtype = DType::f64; }), HasSubstr("f64"));
  EXPECT_THAT(message_of([](Problem& p) { p.softcap = -2.0; }), HasSubstr("softcap -2"));
  EXPECT_THAT(message_of([](Problem& p) { p.softcap = std::nan(""); }), HasSubstr("softcap nan"));
  EXPECT_THAT(
      message_of([](Problem& p) { p.softmax_scale = std::numeric_limits<double>::infinity(); }),
      HasSubstr("softmax_scale inf"));
}

TEST(Resolved, NamesTheMaskThatDoesNotFit) {
  EXPECT_THAT(message_of([](Problem& p) {
                p.mask = Mask::documents({8, 7});
              }),
              AllOf(HasSubstr("15"), HasSubstr("seq is 16")));
  EXPECT_THAT(message_of([](Problem& p) {
                p.mask = Mask::documents({8, 8});
                p.seq_kv = 17;
              }),
              AllOf(HasSubstr("seq_kv 17"), HasSubstr("seq 16")));
  EXPECT_THAT(message_of([](Problem& p) { p.mask = Mask::rows({}); }),
              AllOf(HasSubstr("0 entries"), HasSubstr("seq 16")));
  const auto row = [](KeyInterval a, KeyInterval b) {
    return message_of([=](Problem& p) {
      p.seq = 1;
      p.seq_kv = 16;
      p.mask = Mask::rows({RowIntervals{a, b}});
    });
  };
  EXPECT_THAT(row({4, 8}, {7, 9}), HasSubstr("[7, 9)"));
  EXPECT_THAT(row({0, 0}, {7, 17}), HasSubstr("[7, 17)"));
  EXPECT_THAT(row({-1, 2}, {7, 9}), HasSubstr("[-1, 2)"));
}

TEST(Mask, RefusesWhatCannotBe) {
  EXPECT_THAT(message_of([](Problem&) { Mask::window(-2); }), HasSubstr("window -2, 0"));
  EXPECT_THAT(message_of([](Problem&) { Mask::prefix(-1); }), HasSubstr("-1"));
  EXPECT_THAT(message_of([](Problem&) { Mask::documents({3, -4}); }), HasSubstr("-4"));
  const std::vector<std::int32_t> late{1, 4};
  const std::vector<std::int32_t> falling{0, 4, 3};
  EXPECT_THAT(message_of([&](Problem&) { Mask::documents_from_cu_seqlens(late); }),
              HasSubstr("cu_seqlens"));
  EXPECT_THAT(message_of([&](Problem&) { Mask::documents_from_cu_seqlens(falling); }),
              HasSubstr("-1"));
  EXPECT_THAT(message_of([](Problem&) { Mask::documents_from_cu_seqlens({}); }),
              HasSubstr("cu_seqlens"));
}

TEST(Mask, IsNamedByItsTerms) {
  EXPECT_EQ(Mask::full().name(), "full");
  EXPECT_EQ((Mask::causal() & Mask::documents({4})).name(), "causal+documents");
  EXPECT_EQ((Mask::full() & Mask::window(3)).name(), "window");
}

TEST(Mask, FromCuSeqlensEqualsItsLengths) {
  const std::vector<std::int32_t> cu{0, 4, 4, 9};
  EXPECT_EQ(Mask::documents_from_cu_seqlens(cu), Mask::documents({4, 0, 5}));
}

}  // namespace
}  // namespace annulus
