#include "comm/device/planes.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <random>
#include <vector>

namespace annulus::comm {
namespace {

using Counts = std::array<std::int64_t, 3>;

/// Address of run (i, j, k), straight from the definition of a region.
std::byte* run_of(const Region& r, std::int64_t i, std::int64_t j, std::int64_t k) {
  return r.base + i * r.stride[0] + j * r.stride[1] + k * r.stride[2];
}

void copy(const std::vector<Plane>& all) {
  for (const Plane& p : all) {
    for (std::int64_t row = 0; row < p.rows; ++row) {
      std::memcpy(p.to + row * p.to_pitch, p.from + row * p.from_pitch,
                  static_cast<std::size_t>(p.run));
    }
  }
}

/// Runs of 3 bytes in a memory of its own, axes in any order, some with gaps.
Region random_region(std::mt19937& random, const Counts& count, std::vector<std::byte>& memory) {
  Region r;
  r.count = count;
  r.run = 3;
  std::array<std::size_t, 3> inner_first{2, 1, 0};
  if (random() % 2 == 0) std::swap(inner_first[0], inner_first[1]);
  std::int64_t extent = r.run;
  for (const std::size_t axis : inner_first) {
    r.stride[axis] = extent + (random() % 3 == 0 ? 2 : 0);
    extent = r.stride[axis] * count[axis];
  }
  memory.assign(static_cast<std::size_t>(extent), std::byte{0});
  r.base = memory.data();
  return r;
}

TEST(Planes, CopyEveryRunAndNothingElse) {
  std::mt19937 random(7);
  for (int n = 0; n < 500; ++n) {
    const Counts count{1 + static_cast<std::int64_t>(random() % 3),
                       1 + static_cast<std::int64_t>(random() % 5),
                       1 + static_cast<std::int64_t>(random() % 5)};
    std::vector<std::byte> from_memory;
    std::vector<std::byte> to_memory;
    const Region from = random_region(random, count, from_memory);
    const Region to = random_region(random, count, to_memory);
    for (std::byte& b : from_memory) b = static_cast<std::byte>(1 + random() % 255);
    std::vector<std::byte> expected = to_memory;
    for (std::int64_t i = 0; i < count[0]; ++i) {
      for (std::int64_t j = 0; j < count[1]; ++j) {
        for (std::int64_t k = 0; k < count[2]; ++k) {
          std::memcpy(expected.data() + (run_of(to, i, j, k) - to.base), run_of(from, i, j, k), 3);
        }
      }
    }
    copy(planes(from, to));
    ASSERT_EQ(to_memory, expected) << "region " << n;
  }
}

TEST(Planes, AreOneWhereHeadsLieFirst) {
  std::byte memory[2];
  // Three heads of five tokens, in one piece at the source, out of seven tokens at the target.
  const Region from{.base = memory, .count = {1, 3, 5}, .stride = {600, 40, 8}, .run = 8};
  const Region to{.base = memory + 1, .count = {1, 3, 5}, .stride = {168, 56, 8}, .run = 8};
  const std::vector<Plane> spread = planes(from, to);
  ASSERT_EQ(spread.size(), 1U);
  EXPECT_EQ(spread[0].rows, 3);
  EXPECT_EQ(spread[0].run, 40);
  EXPECT_EQ(spread[0].to_pitch, 56);
  const std::vector<Plane> whole = planes(from, from);
  ASSERT_EQ(whole.size(), 1U);
  EXPECT_EQ(whole[0].rows, 1);
  EXPECT_EQ(whole[0].run, 120);
}

TEST(Planes, AreAsFewAsTheShorterAxis) {
  std::byte memory[1];
  // K of a slot of K and V: runs of half a row. Heads first, and tokens first.
  const Region heads_first{
      .base = memory, .count = {2, 3, 50}, .stride = {9600, 800, 16}, .run = 8};
  const Region tokens_first{
      .base = memory, .count = {2, 50, 3}, .stride = {9600, 48, 16}, .run = 8};
  for (const Region& r : {heads_first, tokens_first}) {
    const std::vector<Plane> all = planes(r, r);
    ASSERT_EQ(all.size(), 6U);
    for (const Plane& p : all) EXPECT_EQ(p.rows, 50);
  }
}

TEST(Planes, HaveNoPitchThatCopiesDoNotTake) {
  std::byte memory[1];
  const std::int64_t far = kMaxPitch + 1;
  const Region from{.base = memory, .count = {1, 3, 1}, .stride = {0, 16, 16}, .run = 16};
  const Region to{.base = memory, .count = {1, 3, 1}, .stride = {0, far, 16}, .run = 16};
  const std::vector<Plane> all = planes(from, to);
  ASSERT_EQ(all.size(), 3U);
  for (std::size_t row = 0; row < 3; ++row) {
    EXPECT_EQ(all[row].rows, 1);
    EXPECT_EQ(all[row].run, 16);
    EXPECT_EQ(all[row].from - memory, static_cast<std::ptrdiff_t>(16 * row));
    EXPECT_EQ(all[row].to - memory, static_cast<std::ptrdiff_t>(row) * far);
  }
}

TEST(Planes, HaveOneShape) {
  std::byte memory[1];
  const Region from{.base = memory, .count = {1, 2, 3}, .stride = {6, 3, 1}, .run = 1};
  const Region to{.base = memory, .count = {1, 3, 2}, .stride = {6, 2, 1}, .run = 1};
  EXPECT_THROW(planes(from, to), InvalidArgument);
}

}  // namespace
}  // namespace annulus::comm
