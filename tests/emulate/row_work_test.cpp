// Row operations, the kernels' own source on emulated blocks: copies and conversions, several in
// one launch, to the bit; row sums near float64's.
#include "attention/execute/cuda/row_work.cuh"
#include "runtime/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <random>
#include <span>
#include <vector>

namespace annulus::attn {
namespace {

using emulate::Machine;

/// One operand: its memory, and where its rows lie there.
struct Operand {
  std::vector<std::byte> memory;
  DeviceRows rows;

  std::int64_t at(std::int64_t b, std::int64_t t, std::int64_t h, std::int64_t d) const {
    return b * rows.batch_stride + t * rows.token_stride + h * rows.head_stride + d;
  }
  float get(std::int64_t i) const {
    const std::byte* p = memory.data() + i * size_of(rows.dtype);
    if (rows.dtype == DType::f32) {
      float x = 0;
      std::memcpy(&x, p, sizeof x);
      return x;
    }
    std::uint16_t bits = 0;
    std::memcpy(&bits, p, sizeof bits);
    return rows.dtype == DType::bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
  }
  void set(std::int64_t i, float x) {
    std::byte* p = memory.data() + i * size_of(rows.dtype);
    if (rows.dtype == DType::f32) {
      std::memcpy(p, &x, sizeof x);
      return;
    }
    const std::uint16_t bits = rows.dtype == DType::bf16 ? f32_to_bf16(x) : f32_to_f16(x);
    std::memcpy(p, &bits, sizeof bits);
  }
};

/// `first`: heads lie first; `gap`: elements between rows.
Operand make(DType dtype, const RowShape& s, bool first, std::int64_t gap, std::mt19937& random) {
  Operand x;
  const std::int64_t row = s.dims + gap;
  x.rows = {nullptr, dtype, s.tokens * s.heads * row, first ? row : s.heads * row,
            first ? s.tokens * row : row};
  const std::int64_t count = s.batch * x.rows.batch_stride;
  x.memory.resize(static_cast<std::size_t>(count * size_of(dtype)));
  x.rows.data = x.memory.data();
  std::normal_distribution<float> normal;
  for (std::int64_t i = 0; i < count; ++i) x.set(i, normal(random));
  return x;
}

template <typename Fn>
void for_elements(const RowShape& s, std::int64_t dims, Fn&& fn) {
  for (std::int64_t b = 0; b < s.batch; ++b) {
    for (std::int64_t t = 0; t < s.tokens; ++t) {
      for (std::int64_t h = 0; h < s.heads; ++h) {
        for (std::int64_t d = 0; d < dims; ++d) fn(b, t, h, d);
      }
    }
  }
}

template <typename Body>
void run_blocks(unsigned blocks, std::uint64_t seed, const Body& body) {
  for (unsigned i = 0; i < blocks; ++i) {
    Machine machine({seed + i, {}});
    machine.run(kThreads, {i, 0, 0}, {blocks, 1, 1}, [&] { body(i); });
  }
}

/// One piece of work, its operands, and what is to come of it.
struct Case {
  Operand from, other, to;
  RowShape shape;
  bool sums = false;

  RowWork work() const { return {from.rows, to.rows, shape}; }
};

Case draw(bool sums, std::mt19937& random) {
  const auto pick = [&](std::initializer_list<std::int64_t> list) {
    return list.begin()[random() % list.size()];
  };
  const auto dtype = [&] { return std::array{DType::f32, DType::bf16, DType::f16}[random() % 3]; };
  Case c;
  c.sums = sums;
  c.shape = {pick({1, 2}), pick({1, 7, 40}), pick({1, 3, 8}), pick({1, 4, 33, 64, 128, 256})};
  if (sums && c.shape.dims == 1) c.shape.dims = 192;
  const DType type = dtype();
  c.from = make(type, c.shape, random() % 2 == 0, pick({0, 0, 1, 8}), random);
  if (sums) c.other = make(type, c.shape, random() % 2 == 0, pick({0, 0, 8}), random);
  RowShape target = c.shape;
  if (sums) target.dims = 1;
  c.to = make(sums ? DType::f32 : dtype(), target, random() % 2 == 0, pick({0, 0, 8}), random);
  return c;
}

/// What `to` holds after a conversion, gaps included; of sums it is what they are near.
void expect_right(const Case& c, Operand before) {
  if (!c.sums) {
    for_elements(c.shape, c.shape.dims, [&](auto b, auto t, auto h, auto d) {
      before.set(before.at(b, t, h, d), c.from.get(c.from.at(b, t, h, d)));
    });
    EXPECT_EQ(c.to.memory, before.memory);
    return;
  }
  for_elements(c.shape, 1, [&](auto b, auto t, auto h, auto) {
    double sum = 0;
    double size = 0;
    for (std::int64_t d = 0; d < c.shape.dims; ++d) {
      const double term = static_cast<double>(c.from.get(c.from.at(b, t, h, d))) *
                          c.other.get(c.other.at(b, t, h, d));
      sum += term;
      size += std::abs(term);
    }
    const std::int64_t i = c.to.at(b, t, h, 0);
    // A rounding of each product, and of each of the sums of a lane and of lanes.
    EXPECT_NEAR(c.to.get(i), sum, size * std::ldexp(20.0, -24));
    before.set(i, c.to.get(i));
  });
  EXPECT_EQ(c.to.memory, before.memory);  // nothing else
}

/// As launch_row_sums has it.
void sum(Case& c, std::uint64_t seed) {
  const DeviceRows& rows = c.to.rows;
  const int width = width_for(c.shape, {c.from.rows, c.other.rows});
  const RowGrid grid = grid_of(c.shape, width);
  const std::int64_t count = c.shape.batch * c.shape.tokens * c.shape.heads;
  const std::int64_t of_block = kRowsAtOnce * kThreads / grid.lanes;
  run_blocks(static_cast<unsigned>((count + of_block - 1) / of_block), seed, [&](unsigned block) {
    const auto sum_as = [&]<typename T>(T) {
      if (width == kWidest) {
        sum_block<kWidest, T>(c.from.rows, c.other.rows, rows, grid, block);
      } else if (width == kWide) {
        sum_block<kWide, T>(c.from.rows, c.other.rows, rows, grid, block);
      } else {
        sum_block<1, T>(c.from.rows, c.other.rows, rows, grid, block);
      }
    };
    if (c.from.rows.dtype == DType::f16) return sum_as(__half{});
    if (c.from.rows.dtype == DType::bf16) return sum_as(__nv_bfloat16{});
    sum_as(float{});
  });
}

TEST(RowWorks, OfOneLaunchAreThoseOfEachAlone) {
  for (std::uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
    std::vector<Case> cases;
    for (std::size_t i = 0; i < 1 + seed % kMostRowWorks; ++i) {
      cases.push_back(draw(false, random));
    }
    std::vector<RowWork> list;
    std::vector<Operand> before;
    for (const Case& c : cases) {
      list.push_back(c.work());
      before.push_back(c.to);
    }
    std::int64_t flops = 9;
    std::uint32_t calls = 4, pass = 0;
    std::uint32_t counters[] = {1, 2, 3};
    RowWorks works{};
    if (seed % 2 == 0) works.begin = {&flops, &calls, &pass, counters, 2};
    works.pass = 7;
    run_blocks(place_works(list, works), seed, [&](unsigned block) { do_works(works, block); });
    for (std::size_t i = 0; i < cases.size(); ++i) {
      SCOPED_TRACE(::testing::Message() << "piece " << i);
      expect_right(cases[i], before[i]);
    }
    const bool begins = seed % 2 == 0;
    EXPECT_EQ(flops, begins ? 0 : 9);
    EXPECT_EQ(calls, begins ? 5U : 4U);
    EXPECT_EQ(pass, begins ? 7U : 0U);
    EXPECT_EQ(std::vector(counters, counters + 3),
              (begins ? std::vector<std::uint32_t>{0, 0, 3} : std::vector<std::uint32_t>{1, 2, 3}));
  }
}

TEST(RowSums, AreNearThoseInFloat64) {
  for (std::uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE(::testing::Message() << "seed " << seed);
    std::mt19937 random(static_cast<std::mt19937::result_type>(seed));
    Case c = draw(true, random);
    const Operand before = c.to;
    sum(c, seed);
    expect_right(c, before);
  }
}

}  // namespace
}  // namespace annulus::attn
