// The dispatch rows of this back end. workspace_bytes reads key segments, so it wants a geometry on
// the host.
#include "attention/kernels/cuda/table.h"

#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/launch.h"

#include <algorithm>
#include <array>
#include <string>

namespace annulus::attn::cuda {

namespace {

constexpr std::int64_t kTile = 128;
constexpr std::int64_t kMaxHeadDim = 512;
constexpr std::int64_t kFloat = sizeof(float);
constexpr std::int64_t kDouble = sizeof(double);

std::string refuses(const KernelQuery& query) {
  if (query.dtype == DType::f64) return "serves f32, bf16 and f16";
  const bool low = std::min(query.head_dim, query.head_dim_v) < 1;
  const bool high = std::max(query.head_dim, query.head_dim_v) > kMaxHeadDim;
  return low || high ? "serves head dims 1 to " + std::to_string(kMaxHeadDim) : "";
}

std::string reference_refuses(const KernelQuery& query) {
  return std::min(query.head_dim, query.head_dim_v) >= 1 ? "" : "serves head dims from 1";
}

std::int64_t key_count(const AttendGeometry& g) {
  std::int64_t count = 0;
  for (const KeySegment& segment : g.keys) count += segment.count;
  return count;
}

std::int64_t turn_bytes(const AttendGeometry& g) {
  return turn_count(g) * static_cast<std::int64_t>(sizeof(int));
}

std::int64_t flash2_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  return backward ? turn_bytes(g) : 0;
}

bool always(const KernelQuery& /*query*/) { return true; }

std::int64_t nothing(const AttendGeometry& /*g*/, bool /*backward*/) { return 0; }

/// O, l and m of every row.
std::int64_t flash1_materialized(const AttendGeometry& g, bool backward) {
  return backward ? 0 : g.batch * g.heads * g.rows * (g.head_dim_v + 2) * kFloat;
}

std::int64_t flash1_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  return backward ? turn_bytes(g) : flash1_materialized(g, false);
}

/// S and P, or P and dS.
std::int64_t naive_materialized(const AttendGeometry& g, bool /*backward*/) {
  return 2 * g.batch * g.heads * g.rows * key_count(g) * kFloat;
}

std::int64_t naive_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  return naive_materialized(g, backward) + g.batch * g.heads * g.rows * kFloat;
}

std::int64_t reference_materialized(const AttendGeometry& g, bool backward) {
  const std::int64_t rows = g.batch * g.heads * g.rows;
  if (!backward) return rows * g.head_dim_v * kDouble;
  return (rows * g.head_dim + g.batch * g.heads * key_count(g) * (g.head_dim + g.head_dim_v)) *
         kDouble;
}

std::int64_t reference_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  return reference_materialized(g, backward);
}

KernelEntries flash1_entries(const KernelQuery& query) {
  return query.backward ? plain_backward_entries() : flash1_forward_entries();
}

KernelEntries naive_entries(const KernelQuery& query) {
  return query.backward ? naive_backward_entries() : naive_forward_entries();
}

KernelEntries entries_of_reference(const KernelQuery& /*query*/) { return reference_entries(); }

constexpr Kernel kFlash2{.name = "flash2",
                         .backend = "cuda",
                         .tile_q = kTile,
                         .tile_k = kTile,
                         .joined_tiles = true,
                         .rounds_dkv = flash2_rounds_dkv,
                         .refuses = refuses,
                         .workspace_bytes = flash2_bytes,
                         .materialized_bytes = nothing,
                         .forward = flash2_forward,
                         .backward = flash2_backward,
                         .entries = flash2_entries};

constexpr Kernel kFlash1{.name = "flash1",
                         .backend = "cuda",
                         .tile_q = kTile,
                         .tile_k = kTile,
                         .joined_tiles = true,
                         .refuses = refuses,
                         .workspace_bytes = flash1_bytes,
                         .materialized_bytes = flash1_materialized,
                         .forward = flash1_forward,
                         .backward = plain_backward,
                         .entries = flash1_entries};

constexpr Kernel kNaive{.name = "naive",
                        .backend = "cuda",
                        .tile_q = kTile,
                        .tile_k = kTile,
                        .joined_tiles = true,
                        .refuses = refuses,
                        .workspace_bytes = naive_bytes,
                        .quadratic_workspace = true,
                        .materialized_bytes = naive_materialized,
                        .forward = naive_forward,
                        .backward = naive_backward,
                        .entries = naive_entries};

constexpr Kernel kReference{.name = "reference",
                            .backend = "cuda",
                            .tile_q = kTile,
                            .tile_k = kTile,
                            .joined_tiles = true,
                            .rounds_dkv = always,
                            .refuses = reference_refuses,
                            .workspace_bytes = reference_bytes,
                            .materialized_bytes = reference_materialized,
                            .forward = reference_forward,
                            .backward = reference_backward,
                            .entries = entries_of_reference};

constexpr Kernel kHopper{.name = "hopper",
                         .backend = "cuda",
                         .tile_q = kTile,
                         .tile_k = kTile,
                         .tiles = sm90::hopper_tiles,
                         .joined_tiles = true,
                         .zeroes_flops = true,
                         .row_alignment = 16,
                         .rounds_dkv = always,
                         .refuses = sm90::hopper_refuses,
                         .workspace_bytes = sm90::hopper_bytes,
                         .make_kept = sm90::hopper_kept,
                         .materialized_bytes = nothing,
                         .forward = sm90::hopper_forward,
                         .backward = sm90::hopper_backward,
                         .entries = sm90::hopper_entries};

}  // namespace

std::span<const Kernel* const> kernels() {
  static constexpr std::array<const Kernel*, 5> kTable{&kHopper, &kFlash2, &kFlash1, &kNaive,
                                                       &kReference};
  return kTable;
}

}  // namespace annulus::attn::cuda
