#include "moe/kernels/cuda/gemms.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <limits>

namespace annulus::moe::cuda {
namespace {

/// A row-major operand [rows][columns], seen as its transpose in columns.
struct Seen {
  bool turned = false;
  std::int64_t leading = 0;
};

Seen seen(const Operand& o, std::int64_t rows, std::int64_t columns) {
  // A leading dimension of a single row or column may be anything; cuBLAS wants it large enough.
  if (o.column_stride == 1) return {false, std::max(o.row_stride, columns)};
  return {true, std::max(o.column_stride, rows)};
}

const std::byte* element(const Operand& o, std::int64_t row, std::int64_t column) {
  return static_cast<const std::byte*>(o.data) +
         (row * o.row_stride + column * o.column_stride) * size_of(o.dtype);
}

bool same_strides(const Operand& x, const Operand& y) {
  return x.row_stride == y.row_stride && x.column_stride == y.column_stride;
}

/// May b (a) go on with `second` after `k` of `first`?
bool continues(const Product& p, const Operand& a, const Operand& b, std::int64_t k,
               const Operand& a_next, const Operand& b_next) {
  return same_strides(p.a, p.a_more) && same_strides(p.b, p.b_more) &&
         element(a, 0, k) == a_next.data && element(b, k, 0) == b_next.data;
}

/// The same sum with one pair of operands, where they lie one after the other.
Product joined(const Product& p) {
  if (p.k_more == 0) return p;
  Product one = p;
  one.k = p.k + p.k_more;
  one.k_more = 0;
  if (p.k == 0 || continues(p, p.a_more, p.b_more, p.k_more, p.a, p.b)) {
    one.a = p.a_more;
    one.b = p.b_more;
    return one;
  }
  return continues(p, p.a, p.b, p.k, p.a_more, p.b_more) ? one : p;
}

void check(const Product& p) {
  const auto refuse = [&](const char* why) {
    throw InvalidArgument(fmt::format("product {} x {} x {}: {}", p.m, p.n, p.k + p.k_more, why));
  };
  const bool strided = (p.a.row_stride != 1 && p.a.column_stride != 1) ||
                       (p.b.row_stride != 1 && p.b.column_stride != 1);
  if (strided) refuse("an operand has no stride of 1");
  const bool inputs =
      p.a.dtype == p.b.dtype &&
      (p.k_more == 0 || (p.a_more.dtype == p.a.dtype && p.b_more.dtype == p.a.dtype));
  if (!inputs) refuse("operands of several types");
  if (p.a.dtype == DType::f64) throw Unsupported("products in f64 on a GPU: f32, bf16 and f16 are");
  if (p.c.dtype != DType::f32 && p.c.dtype != p.a.dtype) refuse("a result of a third type");
  if (p.add && p.c.dtype != DType::f32) refuse("adding wants an f32 result");
  constexpr std::int64_t kMost = std::numeric_limits<int>::max();
  if (std::max({p.m, p.n, p.k, p.k_more, p.c.row_stride}) > kMost) refuse("too large");
}

Gemm gemm_of(const Product& p, const Operand& a, const Operand& b, std::int64_t k, bool add) {
  const Seen left = seen(b, k, p.n);
  const Seen right = seen(a, p.m, k);
  return {.turn_a = left.turned,
          .turn_b = right.turned,
          .m = p.n,
          .n = p.m,
          .k = k,
          .a = b.data,
          .b = a.data,
          .c = p.c.data,
          .lda = left.leading,
          .ldb = right.leading,
          .ldc = std::max(p.c.row_stride, p.n),
          .beta = add ? 1.0F : 0.0F};
}

}  // namespace

std::vector<GemmWork> gemms_of(std::span<const Product> products) {
  std::vector<GemmWork> works;
  works.reserve(products.size());
  for (const Product& product : products) {
    check(product);
    const Product p = joined(product);
    if (p.m == 0 || p.n == 0 || (p.k + p.k_more == 0 && p.add)) continue;
    GemmWork work{.in = p.a.dtype, .out = p.c.dtype, .calls = {}, .flops = p.flops()};
    work.calls[0] = gemm_of(p, p.a, p.b, p.k, p.add);
    work.count = p.k > 0 ? 1 : 0;
    if (p.k_more > 0) work.calls[work.count++] = gemm_of(p, p.a_more, p.b_more, p.k_more, true);
    works.push_back(work);
  }
  std::ranges::stable_sort(works, std::ranges::greater{}, &GemmWork::flops);
  return works;
}

std::vector<int> deal(std::span<const GemmWork> works, int lanes) {
  std::vector<std::int64_t> load(static_cast<std::size_t>(lanes), 0);
  std::vector<int> lane_of;
  for (const GemmWork& work : works) {
    const auto least = std::ranges::min_element(load);
    *least += work.flops;
    lane_of.push_back(static_cast<int>(least - load.begin()));
  }
  return lane_of;
}

}  // namespace annulus::moe::cuda
