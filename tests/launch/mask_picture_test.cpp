#include "launch/mask/picture.h"

#include "launch/mask/owners.h"

#include <gmock/gmock.h>

#include <set>

namespace annulus::launch::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

MaskPicture picture_of(const Problem& problem, const Layout& layout, int world) {
  MaskPicture picture;
  picture.problem = resolved(problem);
  picture.sharding = solve_layout(layout, problem, world);
  picture.layout = layout.name();
  picture.rank_pairs = count_pairs_by_rank(picture.problem, picture.sharding);
  return picture;
}

std::size_t count(const std::string& text, std::string_view part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++n;
  return n;
}

TEST(MaskPicture, CellsAreTokensBelowTwoThousand) {
  const auto cell = [](std::int64_t seq, std::int64_t tile) {
    MaskPicture picture = picture_of({.seq = seq}, Layout::zigzag(), 2);
    picture.tile = tile;
    return cell_of(picture);
  };
  EXPECT_EQ(cell(1999, 128), 1);
  EXPECT_EQ(cell(2000, 128), 128);
  EXPECT_EQ(cell(300 * 128, 128), 128);
  EXPECT_EQ(cell(300 * 128 + 1, 128), 256);
  EXPECT_EQ(cell(std::int64_t{1} << 20, 128), 3584);
  EXPECT_EQ(cell(2000, 1), 7);
}

TEST(MaskPicture, SaysEveryPairOfAShortMask) {
  MaskPicture picture = picture_of({.seq = 3, .mask = Mask::causal()}, Layout::contiguous(), 2);
  picture.labels = {"a<b", "the", "c"};
  const std::string svg = draw_mask(picture);
  EXPECT_EQ(count(svg, " sees key "), 6U);
  EXPECT_THAT(svg, HasSubstr("query 2 &quot;c&quot; sees key 0 &quot;a&lt;b&quot;"));
  EXPECT_THAT(svg, Not(HasSubstr("a<b")));
  EXPECT_THAT(svg, HasSubstr("positions 1-2: rank 1"));
}

TEST(MaskPicture, StaysSmallForAMillionTokens) {
  const Problem problem{.seq = std::int64_t{1} << 20, .mask = Mask::causal()};
  const std::string svg = draw_mask(picture_of(problem, Layout::striped(), 1024));
  EXPECT_LT(svg.size(), std::size_t{2} << 20);
  EXPECT_THAT(svg, HasSubstr("3584 × 3584 tokens"));
}

TEST(MaskPicture, FramesDocuments) {
  MaskPicture picture =
      picture_of({.seq = 40, .mask = Mask::documents({10, 30})}, Layout::zigzag(), 2);
  picture.document_ends = {10, 40};
  EXPECT_THAT(draw_mask(picture), HasSubstr("documents (2)"));
}

TEST(Owners, AreJoinedByCell) {
  const std::vector<Shard> zigzag{{{0, 4, 1}, {12, 4, 1}}, {{4, 8, 1}}};
  const std::vector<OwnedSpan> spans = owned_spans(zigzag, 16, 1);
  ASSERT_EQ(spans.size(), 3U);
  EXPECT_EQ(spans[1].begin, 4);
  EXPECT_EQ(spans[1].end, 12);
  EXPECT_THAT(spans[1].ranks, ElementsAre(1));
  const std::vector<Shard> striped{{{0, 8, 2}}, {{1, 8, 2}}};
  const std::vector<OwnedSpan> mixed = owned_spans(striped, 16, 3);
  ASSERT_EQ(mixed.size(), 2U) << "the last cell is one token, of rank 1";
  EXPECT_THAT(mixed[0].ranks, ElementsAre(0, 1));
  EXPECT_THAT(mixed[1].ranks, ElementsAre(1));
}

TEST(Owners, ColoursDiffer) {
  for (const int world : {1, 8, 9, 64}) {
    std::set<std::string> colours;
    for (int r = 0; r < world; ++r) colours.insert(rank_colour(r, world));
    EXPECT_EQ(colours.size(), static_cast<std::size_t>(world));
  }
}

}  // namespace
}  // namespace annulus::launch::test
