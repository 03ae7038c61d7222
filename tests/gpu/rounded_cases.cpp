#include "tests/gpu/rounded_cases.h"

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

using attn::KeySegment;

const std::vector<std::string_view> kBoth{"flash2", "hopper"};
const std::vector<std::string_view> kHopper{"hopper"};
const std::vector<std::string_view> kPlain{"flash2", "flash1"};

/// A launch for each list of segments, in tiles that all kernels take.
void run(const Cases& cases, const char* what, const OracleProblem& p,
         const std::vector<std::string_view>& kernels,
         const std::vector<std::vector<KeySegment>>& launches, std::int64_t gap = 8) {
  Case c{name_of(what, p), {}};
  c.options = {.gap = gap, .gap_step = gap, .rounded_keys = true};
  const TileGrid grid{128, p.head_dim > 128 ? 64 : 128};
  for (const auto& keys : launches) c.chain.push_back(make_launch(p, keys, grid));
  cases.run(c, kernels);
}

void run(const Cases& cases, const char* what, const OracleProblem& p,
         const std::vector<std::string_view>& kernels) {
  run(cases, what, p, kernels, {one_segment(p)});
}

void shapes(const Cases& cases, const OracleProblem& base,
            const std::vector<std::string_view>& kernels) {
  for (const std::int64_t seq : {1, 7, 130, 413}) {
    OracleProblem p = base;
    p.seq = p.seq_kv = seq;
    run(cases, "rounded causal", p, kernels);
    p.terms.clear();
    run(cases, "rounded full", p, kernels);
  }
  OracleProblem p = base;
  p.heads = 24;
  p.heads_kv = 8;
  run(cases, "rounded grouped", p, kernels);
  p.batch = 4;
  p.terms = {Mask::Documents{{100, 0, 37, 1, 162}, true}};
  run(cases, "rounded many", p, kernels);
}

/// Keys that nobody sees, before, between and behind those that some do.
void gaps(const Cases& cases, const OracleProblem& base,
          const std::vector<std::string_view>& kernels) {
  OracleProblem p = base;
  p.seq = 70;
  p.terms = {Mask::Causal{}, Mask::Window{100, 0}};
  run(cases, "rounded unseen first", p, kernels);
  Mask::Rows rows;
  rows.intervals.assign(70, RowIntervals{});
  p.terms = {rows};
  run(cases, "rounded unseen", p, kernels);
  rows.intervals.assign(70, {KeyInterval{3, 20}, KeyInterval{270, 281}});
  p.terms = {rows};
  run(cases, "rounded unseen between", p, kernels);
  run(cases, "rounded unseen segments", p, kernels, {segments_cut_at(p.seq_kv, {5, 5, 30, 200})});
}

void cuts(const Cases& cases, const OracleProblem& base,
          const std::vector<std::string_view>& kernels) {
  run(cases, "rounded odd segments", base, kernels,
      {segments_cut_at(base.seq_kv, {1, 8, 8, 77, 140})});
  std::vector<std::vector<KeySegment>> chain;
  for (const KeySegment& segment : segments_cut_at(base.seq_kv, {5, 5, 180})) {
    chain.push_back({segment});
  }
  run(cases, "rounded chain", base, kernels, chain);
  OracleProblem p = base;
  p.terms.emplace_back(Mask::Window{150, 0});
  run(cases, "rounded striped", p, kernels, {striped_segments(p.seq_kv, 4)});
  p.softcap = 5.0;
  run(cases, "rounded softcap", p, kernels);
}

void dims(const Cases& cases, std::int64_t dim, std::int64_t dim_v,
          const std::vector<std::string_view>& kernels) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    OracleProblem p = problem_of(dtype, 300, dim);
    p.head_dim_v = dim_v;
    shapes(cases, p, kernels);
    if (dtype == DType::f16) continue;
    gaps(cases, p, kernels);
    cuts(cases, p, kernels);
  }
}

}  // namespace

void rounded_cases(const Cases& cases) {
  for (const std::int64_t dim : {128, 64}) {
    dims(cases, dim, dim, kBoth);
    // Operands that tensor cores cannot read go to the plain path.
    const OracleProblem p = problem_of(DType::bf16, 203, dim);
    run(cases, "rounded misaligned", p, kBoth, {one_segment(p)}, 3);
  }
  for (const auto& [dim, dim_v] : {std::pair{96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    dims(cases, dim, dim_v, kHopper);
  }
  // More columns than are summed at once.
  OracleProblem p = problem_of(DType::bf16, 145, 200);
  p.head_dim_v = 136;
  run(cases, "rounded other dims", p, kPlain);
  p.head_dim = p.head_dim_v = 7;
  run(cases, "rounded other dims", p, kPlain, {one_segment(p)}, 3);
}

}  // namespace annulus::testing
