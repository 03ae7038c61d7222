#include "launch/attend/shapes.h"

#include "launch/options/sources.h"
#include "tests/launch/scratch.h"

#include <gmock/gmock.h>

namespace annulus::launch::test {
namespace {

using ::testing::HasSubstr;

Settings with(std::vector<std::string> words) {
  for (const char* key : {"--q", "--k", "--v", "--dout"}) {
    words.emplace_back(key);
    words.emplace_back("x.npy");
  }
  Settings settings;
  read_command_line(words, settings);
  return settings;
}

StoredTensor of(std::vector<std::int64_t> shape, DType dtype = DType::f32) {
  return {.dtype = dtype, .shape = std::move(shape)};
}

AttendTensors grouped() {
  return {
      .q = of({1, 613, 24, 128}), .k = of({1, 613, 8, 128}), .v = of({1, 613, 8, 64}), .dout = {}};
}

TEST(AttendShape, IsReadFromTheFiles) {
  const AttendShape s = attend_shape(with({}), grouped());
  EXPECT_EQ(s.seq, 613);
  EXPECT_EQ(s.heads, 24);
  EXPECT_EQ(s.heads_kv, 8);
  EXPECT_EQ(s.head_dim, 128);
  EXPECT_EQ(s.head_dim_v, 64);
  const Settings filled = with_shape(with({}), s);
  EXPECT_EQ(filled.integer("heads_kv"), 8);
  EXPECT_EQ(filled.integer("seq_kv"), 613);
}

TEST(AttendShape, IsReadWithoutABatch) {
  const AttendShape s = attend_shape(
      with({}), {.q = of({7, 2, 16}), .k = of({9, 1, 16}), .v = of({9, 1, 16}), .dout = {}});
  EXPECT_EQ(s.batch, 1);
  EXPECT_EQ(s.seq, 7);
  EXPECT_EQ(s.seq_kv, 9);
}

/// What is said of a wrong number of elements.
std::string complaint(const std::vector<std::string>& words, const AttendTensors& tensors) {
  return refusal([&] { attend_shape(with(words), tensors); });
}

TEST(AttendShape, NamesTheHeadsThatWereMeant) {
  constexpr const char* kText =
      "--k: k has 627712 = 1·613·8·128 elements, [1,613,24,128] needs 1883136: set heads_kv=8";
  EXPECT_EQ(complaint({"--heads-kv", "24"}, grouped()), kText);
  const AttendTensors flat{.q = of({1883136}), .k = of({627712}), .v = of({627712}), .dout = {}};
  const std::vector<std::string> shape{"--seq", "613", "--heads", "24", "--head-dim", "128"};
  EXPECT_EQ(complaint(shape, flat), kText);
  std::vector<std::string> right = shape;
  right.insert(right.end(), {"--heads-kv", "8"});
  EXPECT_EQ(complaint(right, flat), "");
}

TEST(AttendShape, NamesOtherDimensionsToo) {
  AttendTensors t = grouped();
  EXPECT_THAT(complaint({"--seq", "600"}, t), HasSubstr("--q: q has 1883136"));
  EXPECT_THAT(complaint({"--seq", "600"}, t), HasSubstr("set seq=613"));
  t.v = of({1, 600, 8, 64});
  EXPECT_THAT(complaint({}, t), HasSubstr("seq_kv 600 is not that of the other tensors"));
  t = grouped();
  t.dout = of({1, 613, 24, 128});
  EXPECT_THAT(complaint({}, t), HasSubstr("head_dim_v 128 is not that of the other tensors"));
  const AttendTensors odd{.q = of({1883136}), .k = of({7}), .v = of({7}), .dout = {}};
  EXPECT_THAT(complaint({"--seq", "613", "--heads", "24", "--head-dim", "128"}, odd),
              HasSubstr("k has 7 elements"));
}

TEST(AttendShape, NeedsOneDtype) {
  AttendTensors t = grouped();
  t.v.dtype = DType::f16;
  EXPECT_THAT(complaint({}, t), HasSubstr("--v: 'x.npy' is f16; allowed: f32"));
  EXPECT_THAT(complaint({"--dtype", "bf16"}, grouped()), HasSubstr("--dtype: 'bf16'"));
}

}  // namespace
}  // namespace annulus::launch::test
