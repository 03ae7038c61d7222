#include "moe/kernels/cpu/block_ops.h"
#include "moe/kernels/cpu/kernel.h"
#include "runtime/base/dtype.h"
#include "runtime/base/parallel_for.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

// A blocked product: tiles of kRows x kColumns of a result, each of them one thread's from first to
// last k, so that no result depends on the threads. Own code rather than a BLAS: those split sums
// by size and thread count, which would let a row's bits depend on the rows beside it, and hold
// thread pools in global state.
namespace annulus::moe::cpu {
namespace {

constexpr std::int64_t kRows = 192;
constexpr std::int64_t kColumns = 256;
// A panel of b, kDepth x 64 floats, stays in L1; a tile's three blocks, 0.4 MiB, in L2.
constexpr std::int64_t kDepth = 128;
constexpr std::int64_t kPanel = 64;

/// A thread's blocks, all f32.
struct Share {
  static constexpr std::int64_t kFloats = kRows * kColumns      // c
                                          + kRows * kDepth      // a
                                          + kDepth * kColumns   // b
                                          + kDepth * kColumns;  // rows of b before they are turned
  explicit Share(float* at)
      : c(at), a(c + kRows * kColumns), b(a + kRows * kDepth), turned(b + kDepth * kColumns) {}
  float* c;
  float* a;
  float* b;
  float* turned;
};

/// Tiles of one product, counted along its rows first: neighbours share their block of b.
struct Grid {
  explicit Grid(const Product& p)
      : down((p.m + kRows - 1) / kRows), across((p.n + kColumns - 1) / kColumns) {}
  std::int64_t down, across;
  std::int64_t count() const { return down * across; }
};

const void* element(const Operand& o, std::int64_t row, std::int64_t column) {
  const std::int64_t at = row * o.row_stride + column * o.column_stride;
  return static_cast<const std::byte*>(o.data) + at * size_of(o.dtype);
}

class Tile {
 public:
  Tile(const Product& product, std::int64_t index, const BlockOps& ops, float* memory)
      : p_(product), ops_(ops), share_(memory) {
    const Grid grid(product);
    m0_ = index % grid.down * kRows;
    n0_ = index / grid.down * kColumns;
    m_ = std::min(kRows, p_.m - m0_);
    n_ = std::min(kColumns, p_.n - n0_);
  }

  void run() {
    begin();
    add(p_.a, p_.b, p_.k);
    if (p_.k_more > 0) add(p_.a_more, p_.b_more, p_.k_more);
    end();
  }

 private:
  void add(const Operand& a, const Operand& b, std::int64_t depth) {
    const bool by_row = a.column_stride == 1;
    for (std::int64_t k0 = 0; k0 < depth; k0 += kDepth) {
      const std::int64_t k = std::min(kDepth, depth - k0);
      take_left(a, k0, k, by_row);
      take_right(b, k0, k);
      for (std::int64_t n = 0; n < n_; n += kPanel) {
        ops_.multiply({.m = m_,
                       .n = std::min(kPanel, padded(n_) - n),
                       .k = k,
                       .a = share_.a,
                       .a_m = by_row ? kDepth : 1,
                       .a_k = by_row ? 1 : kRows,
                       .b = share_.b + n * kDepth,
                       .b_k = kPanel,
                       .c = share_.c + n,
                       .c_m = kColumns});
      }
    }
  }

  std::byte* result_row(std::int64_t m) const {
    const std::int64_t at = (m0_ + m) * p_.c.row_stride + n0_;
    return static_cast<std::byte*>(p_.c.data) + at * size_of(p_.c.dtype);
  }

  void begin() {
    for (std::int64_t m = 0; m < m_; ++m) {
      float* row = share_.c + m * kColumns;
      std::fill_n(row, padded(n_), 0.0F);
      if (p_.add) ops_.widen(result_row(m), p_.c.dtype, n_, row);
    }
  }

  void end() {
    for (std::int64_t m = 0; m < m_; ++m) {
      ops_.narrow(share_.c + m * kColumns, n_, p_.c.dtype, result_row(m));
    }
  }

  /// Block of a as it lies: [m][kDepth], or [k][kRows] where its rows are neighbours.
  void take_left(const Operand& a, std::int64_t k0, std::int64_t k, bool by_row) {
    if (by_row) {
      for (std::int64_t m = 0; m < m_; ++m) {
        ops_.widen(element(a, m0_ + m, k0), a.dtype, k, share_.a + m * kDepth);
      }
      return;
    }
    for (std::int64_t i = 0; i < k; ++i) {
      ops_.widen(element(a, m0_, k0 + i), a.dtype, m_, share_.a + i * kRows);
    }
  }

  /// Block of b in panels of kPanel columns, each [k][kPanel]; columns beyond n are zero.
  void take_right(const Operand& b, std::int64_t k0, std::int64_t k) {
    for (std::int64_t n = 0; n < n_; n += kPanel) {
      float* panel = share_.b + n * kDepth;
      const std::int64_t wide = std::min(kPanel, n_ - n);
      if (b.column_stride == 1) {
        for (std::int64_t i = 0; i < k; ++i) {
          float* row = panel + i * kPanel;
          ops_.widen(element(b, k0 + i, n0_ + n), b.dtype, wide, row);
          std::fill(row + wide, row + padded(wide), 0.0F);
        }
        continue;
      }
      for (std::int64_t j = 0; j < wide; ++j) {
        ops_.widen(element(b, k0, n0_ + n + j), b.dtype, k, share_.turned + j * kDepth);
      }
      std::fill(share_.turned + wide * kDepth, share_.turned + padded(wide) * kDepth, 0.0F);
      ops_.transpose({.rows = padded(wide),
                      .columns = k,
                      .from = share_.turned,
                      .from_pitch = kDepth,
                      .to = panel,
                      .to_pitch = kPanel});
    }
  }

  const Product& p_;
  const BlockOps& ops_;
  Share share_;
  std::int64_t m0_ = 0, n0_ = 0, m_ = 0, n_ = 0;
};

void check(const Product& p) {
  const auto strided = [](const Operand& o) { return o.row_stride != 1 && o.column_stride != 1; };
  if (strided(p.a) || strided(p.b) || (p.k_more > 0 && (strided(p.a_more) || strided(p.b_more)))) {
    throw InvalidArgument("product: an operand has no stride of 1");
  }
  if (p.add && p.c.dtype != DType::f32) {
    throw InvalidArgument(
        fmt::format("product: sums are added in f32, not in {}", name_of(p.c.dtype)));
  }
}

}  // namespace

std::int64_t workspace_bytes(int threads) {
  return std::max(threads, 1) * Share::kFloats * static_cast<std::int64_t>(sizeof(float));
}

void multiply(std::span<const Product> products, const LaunchContext& context) {
  const std::int64_t needed = workspace_bytes(context.threads);
  if (static_cast<std::int64_t>(context.workspace.size()) < needed) {
    throw InvalidArgument(fmt::format("product: {} bytes of workspace for {} threads, {} needed",
                                      context.workspace.size(), context.threads, needed));
  }
  std::int64_t tiles = 0;
  for (const Product& product : products) {
    check(product);
    tiles += Grid(product).count();
    if (context.flops != nullptr) *context.flops += product.flops();
  }
  const BlockOps ops = block_ops();
  auto* memory = reinterpret_cast<float*>(context.workspace.data());
  parallel_for(context.threads, tiles, context.poll, [&](int thread, std::int64_t tile) {
    std::size_t product = 0;
    for (; tile >= Grid(products[product]).count(); ++product) {
      tile -= Grid(products[product]).count();
    }
    Tile(products[product], tile, ops, memory + thread * Share::kFloats).run();
    if (thread == 0 && context.poll) context.poll();
  });
}

}  // namespace annulus::moe::cpu
