// Scalar conversions of runtime/base/dtype.h, over all 16-bit patterns.
#include "runtime/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace annulus {
namespace {

constexpr DType kHalves[] = {DType::f16, DType::bf16};

/// As wide as any element, or the compiler warns of the branches that are not taken.
union Slot {
  std::uint16_t half;
  double wide = 0.0;
};

std::uint16_t stored(DType dtype, double value) {
  Slot slot;
  store_f64(&slot, dtype, 0, value);
  return slot.half;
}

std::uint16_t stored_f32(DType dtype, float value) {
  Slot slot;
  store_f32(&slot, dtype, 0, value);
  return slot.half;
}

double loaded(DType dtype, std::uint16_t bits) {
  Slot slot;
  slot.half = bits;
  return load_f64(&slot, dtype, 0);
}

TEST(Dtype, EveryHalfComesBackAsItWas) {
  for (const DType dtype : kHalves) {
    for (std::uint32_t pattern = 0; pattern < 0x10000U; ++pattern) {
      const auto bits = static_cast<std::uint16_t>(pattern);
      const double value = loaded(dtype, bits);
      if (std::isnan(value)) {
        const std::uint16_t back = stored(dtype, value);
        ASSERT_TRUE(std::isnan(loaded(dtype, back)));
      } else {
        ASSERT_EQ(stored(dtype, value), bits);
        ASSERT_EQ(stored_f32(dtype, static_cast<float>(value)), bits);
      }
    }
  }
}

TEST(Dtype, RoundsToTheNearestAndTiesToEven) {
  for (const DType dtype : kHalves) {
    const std::uint16_t infinity = dtype == DType::f16 ? 0x7c00 : 0x7f80;
    for (std::uint16_t low = 0; low + 1 < infinity; ++low) {
      const auto high = static_cast<std::uint16_t>(low + 1);
      const double a = loaded(dtype, low);
      const double b = loaded(dtype, high);
      const double middle = (a + b) / 2;
      ASSERT_EQ(stored(dtype, middle), low % 2 == 0 ? low : high);
      ASSERT_EQ(stored(dtype, std::nextafter(middle, a)), low);  // no double rounding from f64
      ASSERT_EQ(stored(dtype, std::nextafter(middle, b)), high);
      ASSERT_EQ(stored(dtype, -middle), (low % 2 == 0 ? low : high) | 0x8000);
    }
  }
}

TEST(Dtype, OverflowsToInfinityAndKeepsNan) {
  for (const DType dtype : kHalves) {
    const std::uint16_t infinity = dtype == DType::f16 ? 0x7c00 : 0x7f80;
    EXPECT_EQ(stored(dtype, 1e300), infinity);
    EXPECT_EQ(stored(dtype, HUGE_VAL), infinity);
    EXPECT_EQ(stored(dtype, -HUGE_VAL), infinity | 0x8000);
    EXPECT_TRUE(std::isnan(rounded_to(dtype, std::nan(""))));
  }
  EXPECT_EQ(stored(DType::f16, 65519.999), 0x7bff);
  EXPECT_EQ(stored(DType::f16, 65520.0), 0x7c00);
  const auto sly_nan = std::bit_cast<float>(0x7f800001U);  // its payload is all in the low half
  EXPECT_TRUE(std::isnan(bf16_to_f32(f32_to_bf16(sly_nan))));
}

}  // namespace
}  // namespace annulus
