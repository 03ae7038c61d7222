#include "moe/kernels/sm90/grouped.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace annulus::moe::sm90 {
namespace {

using cuda::Gemm;
using cuda::GemmWork;

constexpr std::int64_t kElement = 2;
constexpr std::int64_t kPiece = 16;  ///< bytes that copies and stores are aligned to
constexpr std::int64_t kMostStride = std::int64_t{1} << 40;  ///< of a map, bytes

std::uintptr_t address(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

bool is_aligned(const void* p, std::int64_t leading) {
  return address(p) % kPiece == 0 && leading * kElement % kPiece == 0;
}

/// As column-major calls have it (gemms.h): m columns of the result, n rows, a the weights.
bool suits(const GemmWork& work, const Gemm& like) {
  const Gemm& g = work.calls[0];
  return work.in == DType::bf16 && work.out == DType::bf16 && work.count == 1 && g.beta == 0.0F &&
         !g.turn_b && g.turn_a == like.turn_a && g.m == like.m && g.k == like.k &&
         g.lda == like.lda && g.ldb == like.ldb && g.ldc == like.ldc &&
         g.m * kElement % kPiece == 0 && is_aligned(g.a, g.lda) && is_aligned(g.b, g.ldb) &&
         is_aligned(g.c, g.ldc);
}

/// Rows from `low` to `at`; -1 where that is no number of whole rows.
std::int64_t rows_between(const void* low, const void* at, std::int64_t leading) {
  const auto bytes = static_cast<std::int64_t>(address(at) - address(low));
  return bytes % (leading * kElement) == 0 ? bytes / (leading * kElement) : -1;
}

/// The matrix of experts' that each is, by what all distances are multiples of: others may be
/// missing. In bytes; `otherwise` for a single one.
std::int64_t stride_of(std::span<const GemmWork> works, const void* low, std::int64_t otherwise) {
  std::int64_t stride = 0;
  for (const GemmWork& work : works) {
    stride = std::gcd(stride, static_cast<std::int64_t>(address(work.calls[0].a) - address(low)));
  }
  return stride == 0 ? otherwise : stride;
}

const void* lowest(std::span<const GemmWork> works, auto pointer) {
  const void* low = pointer(works.front().calls[0]);
  for (const GemmWork& work : works) {
    if (address(pointer(work.calls[0])) < address(low)) low = pointer(work.calls[0]);
  }
  return low;
}

/// One after the other, with nothing between: what is read behind an expert's last row is a row.
bool are_dense(std::span<const Group> groups) {
  std::vector<Group> sorted(groups.begin(), groups.end());
  std::ranges::sort(sorted, {}, &Group::first);
  std::int64_t next = 0;
  for (const Group& group : sorted) {
    if (group.first != next) return false;
    next += group.rows;
  }
  return true;
}

}  // namespace

std::optional<GroupedCall> grouped_of(std::span<const GemmWork> works) {
  if (works.empty() || works.size() > kMostGroups) return std::nullopt;
  const Gemm& like = works.front().calls[0];
  const bool all = std::ranges::all_of(works, [&](const GemmWork& w) { return suits(w, like); });
  if (!all) return std::nullopt;
  const void* const a = lowest(works, [](const Gemm& g) { return g.b; });
  const void* const b = lowest(works, [](const Gemm& g) { return g.a; });
  const void* const c = lowest(works, [](const Gemm& g) -> const void* { return g.c; });
  const std::int64_t b_rows = like.turn_a ? like.m : like.k;
  const std::int64_t stride = stride_of(works, b, like.lda * b_rows * kElement);
  const std::int64_t total =
      std::accumulate(works.begin(), works.end(), std::int64_t{0},
                      [](std::int64_t sum, const GemmWork& work) { return sum + work.calls[0].n; });
  constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max() / 2;
  if (total > kMost || like.m > kMost || like.k > kMost || stride >= kMostStride ||
      stride % kPiece != 0) {
    return std::nullopt;
  }
  GroupedCall call;
  call.across = !like.turn_a;
  Grouped& told = call.told;
  std::int64_t experts = 1;
  for (const GemmWork& work : works) {
    const Gemm& g = work.calls[0];
    const std::int64_t first = rows_between(a, g.b, g.ldb);
    const std::int64_t expert = static_cast<std::int64_t>(address(g.a) - address(b)) / stride;
    if (first < 0 || first > kMost || expert > kMost || rows_between(c, g.c, g.ldc) != first) {
      return std::nullopt;
    }
    experts = std::max(experts, expert + 1);
    told.table[told.groups++] = {static_cast<std::int32_t>(first), static_cast<std::int32_t>(g.n),
                                 static_cast<std::int32_t>(expert)};
  }
  if (!are_dense({told.table, works.size()})) return std::nullopt;
  told.n = static_cast<std::int32_t>(like.m);
  told.k = static_cast<std::int32_t>(like.k);
  told.c = const_cast<void*>(c);
  told.stride = like.ldc;
  const auto u = [](std::int64_t x) { return static_cast<std::uint64_t>(x); };
  const std::uint64_t a_row = u(like.ldb * kElement), b_row = u(like.lda * kElement);
  call.a = {a, {u(like.k), u(total), 1, 1}, {a_row, a_row, a_row}};
  call.b = {
      b, {u(call.across ? like.m : like.k), u(b_rows), u(experts), 1}, {b_row, u(stride), b_row}};
  return call;
}

}  // namespace annulus::moe::sm90
