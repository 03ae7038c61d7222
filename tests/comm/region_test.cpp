#include "comm/transport.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <vector>

namespace annulus::comm {
namespace {

std::vector<std::byte> numbers(std::size_t size) {
  std::vector<std::byte> bytes(size);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 31 % 251);
  return bytes;
}

/// Byte by byte, straight from the definition of a region.
std::vector<std::byte> read(const Region& region) {
  std::vector<std::byte> bytes;
  for (std::int64_t i = 0; i < region.count[0]; ++i) {
    for (std::int64_t j = 0; j < region.count[1]; ++j) {
      for (std::int64_t k = 0; k < region.count[2]; ++k) {
        const std::byte* run =
            region.base + i * region.stride[0] + j * region.stride[1] + k * region.stride[2];
        bytes.insert(bytes.end(), run, run + region.run);
      }
    }
  }
  return bytes;
}

TEST(Coalesce, JoinsADenseBoxToOneRun) {
  std::vector<std::byte> memory(2 * 3 * 4 * 5);
  const Region joined =
      coalesce({.base = memory.data(), .count = {2, 3, 4}, .stride = {60, 20, 5}, .run = 5});
  EXPECT_EQ(joined.run, 120);
  EXPECT_EQ(joined.count, (std::array<std::int64_t, 3>{1, 1, 1}));
}

TEST(Coalesce, JoinsOuterAxesOfAStridedBox) {
  std::vector<std::byte> memory(1000);
  const Region joined =
      coalesce({.base = memory.data(), .count = {2, 3, 4}, .stride = {120, 40, 10}, .run = 5});
  EXPECT_EQ(joined.run, 5);
  EXPECT_EQ(joined.count, (std::array<std::int64_t, 3>{1, 1, 24}));
  EXPECT_EQ(joined.stride[2], 10);
}

TEST(Coalesce, MakesEveryEmptyRegionTheSame) {
  const Region joined = coalesce({.count = {2, 0, 4}, .stride = {8, 8, 8}, .run = 8});
  EXPECT_EQ(joined.bytes(), 0);
  EXPECT_EQ(joined.count, (std::array<std::int64_t, 3>{1, 1, 1}));
}

Region random_region(std::mt19937& random, std::vector<std::byte>& memory,
                     std::array<std::int64_t, 4> extents) {
  const auto gap = [&] { return static_cast<std::int64_t>(random() % 3 == 0 ? random() % 9 : 0); };
  Region region{.run = extents[3]};
  region.count = {extents[0], extents[1], extents[2]};
  region.stride[2] = region.run + gap();
  region.stride[1] = region.stride[2] * region.count[2] + gap();
  region.stride[0] = region.stride[1] * region.count[1] + gap();
  memory = numbers(static_cast<std::size_t>(region.stride[0] * region.count[0] + 1));
  region.base = memory.data();
  return region;
}

TEST(CopyRegion, KeepsByteOrderBetweenAnyTwoShapes) {
  std::mt19937 random(7);
  const std::vector<std::array<std::int64_t, 4>> shapes{{1, 1, 1, 60}, {2, 3, 2, 5}, {60, 1, 1, 1},
                                                        {1, 5, 1, 12}, {3, 1, 4, 5}, {2, 2, 5, 3}};
  for (int trial = 0; trial < 500; ++trial) {
    std::vector<std::byte> from;
    std::vector<std::byte> to;
    const Region source = random_region(random, from, shapes[random() % shapes.size()]);
    const Region target = random_region(random, to, shapes[random() % shapes.size()]);
    ASSERT_EQ(read(coalesce(source)), read(source));
    copy_region(source, target);
    ASSERT_EQ(read(source), read(target));
  }
}

TEST(CopyRegion, LeavesTheGapsAlone) {
  auto from = numbers(12);
  std::vector<std::byte> to(24, std::byte{0xee});
  copy_region({.base = from.data(), .run = 12},
              {.base = to.data(), .count = {1, 1, 4}, .stride = {0, 0, 6}, .run = 3});
  for (std::size_t i = 0; i < to.size(); ++i) {
    if (i % 6 < 3) continue;
    EXPECT_EQ(to[i], std::byte{0xee}) << i;
  }
}

TEST(CopyRegion, RefusesRegionsOfDifferentSize) {
  auto bytes = numbers(12);
  EXPECT_THROW(copy_region({.base = bytes.data(), .run = 3}, {.base = bytes.data(), .run = 4}),
               InvalidArgument);
}

TEST(CopyRegion, AcceptsNothing) { EXPECT_NO_THROW(copy_region({}, {.count = {4, 1, 1}})); }

}  // namespace
}  // namespace annulus::comm
