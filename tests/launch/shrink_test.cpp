#include "launch/options/sources.h"
#include "launch/request/problem.h"

#include <gmock/gmock.h>

#include <numeric>

namespace annulus::launch::test {
namespace {

TEST(Shrink, LengthsAreDividedAndNothingElse) {
  const Problem large{.batch = 3, .seq = 6400, .seq_kv = 12800, .heads = 8, .head_dim = 96};
  const Problem small = shrunk(large, 64);
  EXPECT_EQ(small.seq, 100);
  EXPECT_EQ(small.seq_kv, 200);
  EXPECT_EQ(small.batch, 3);
  EXPECT_EQ(small.heads, 8);
  EXPECT_EQ(small.head_dim, 96);
  EXPECT_EQ(small.mask, Mask::causal());
}

TEST(Shrink, NothingVanishes) {
  EXPECT_EQ(shrunk({.seq = 5}, 64).seq, 1);
  const Problem window = shrunk({.seq = 640, .mask = Mask::window(10, 5) & Mask::prefix(7)}, 64);
  EXPECT_EQ(window.mask, Mask::window(1, 1) & Mask::prefix(1));
}

TEST(Shrink, UnboundedAndEmptyStayWhatTheyAre) {
  const Mask mask = Mask::window(-1, 0) & Mask::prefix(0);
  EXPECT_EQ(shrunk({.seq = 640, .mask = mask}, 64).mask, mask);
}

TEST(Shrink, DocumentsStillSumToTheLength) {
  const Problem large{.seq = 1000, .mask = Mask::window(128) & Mask::documents({700, 0, 3, 297})};
  for (const std::int64_t by : {1, 2, 7, 64, 5000}) {
    const Problem small = resolved(shrunk(large, by));  // throws where they do not
    const auto& documents = std::get<Mask::Documents>(small.mask.terms().back());
    EXPECT_EQ(documents.lengths.size(), 4) << by;
    EXPECT_EQ(documents.lengths[1], 0) << by;
    EXPECT_GE(documents.lengths[2], 1) << by;
    EXPECT_EQ(std::accumulate(documents.lengths.begin(), documents.lengths.end(), 0L), small.seq);
  }
}

TEST(Shrink, ByOneIsTheSameProblem) {
  const Mask rows = Mask::rows({RowIntervals{KeyInterval{0, 1}}, RowIntervals{KeyInterval{0, 2}}});
  EXPECT_EQ(shrunk({.seq = 2, .mask = rows}, 1).mask, rows);
  EXPECT_THROW(shrunk({.seq = 2, .mask = rows}, 2), InvalidArgument);
}

TEST(Shrink, TheKeyAppliesWhereverAProblemIsRead) {
  Settings settings;
  read_command_line(
      {"--seq", "64k", "--shrink", "64", "--mask", "documents", "--documents", "32k,16k,16k"},
      settings);
  EXPECT_EQ(problem_of(settings).seq, 1024);
  EXPECT_EQ(problem_of(settings).mask, Mask::documents({512, 256, 256}));
}

}  // namespace
}  // namespace annulus::launch::test
