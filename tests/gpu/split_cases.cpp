#include "tests/gpu/split_cases.h"

#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

using attn::KeySegment;

const std::vector<std::string_view> kHopper{"hopper"};

/// Full, few rows and many keys.
OracleProblem few_rows(std::int64_t rows, std::int64_t keys, std::int64_t dim, std::int64_t heads,
                       std::int64_t heads_kv) {
  OracleProblem p = problem_of(DType::bf16, rows, dim, heads, heads_kv);
  p.seq_kv = keys;
  p.terms.clear();
  return p;
}

/// Forward alone. And launches that know their sequence: deterministic ones are split at fixed
/// positions then, and others may take other steps.
void run(const Cases& cases, Case c) {
  c.forward = true;
  cases.run(c, kHopper);
  c.name += " known";
  for (TestLaunch& launch : c.chain) launch.sequence_keys = launch.problem.seq_kv;
  cases.run(c, kHopper);
}
/// A launch for each part of the keys.
void run(const Cases& cases, const char* what, const OracleProblem& p,
         const std::vector<std::vector<KeySegment>>& launches) {
  Case c{name_of(what, p), {}};
  for (const auto& keys : launches) c.chain.push_back(make_launch(p, keys, kGrid));
  run(cases, std::move(c));
}
void run(const Cases& cases, const char* what, const OracleProblem& p) {
  run(cases, what, p, {one_segment(p)});
}

void head_dims(const Cases& cases) {
  for (const auto& [dim, dim_v] :
       {std::pair{128, 128}, {64, 64}, {96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    for (const std::int64_t rows : {1, 7, 130}) {
      OracleProblem p = few_rows(rows, 3001, dim, 4, 2);
      p.head_dim_v = dim_v;
      run(cases, "split rows", p);
      if (rows > 7) continue;
      p.dtype = DType::f16;
      p.softcap = 5.0;
      run(cases, "split softcap", p);
    }
    // So many heads that it is better to pack them.
    for (const std::int64_t rows : {1, 5}) {
      OracleProblem p = few_rows(rows, 2003, dim, 64, 8);
      p.head_dim_v = dim_v;
      p.batch = 3;  // the naive product's largest error is a bound only where there are many rows
      run(cases, "split packed", p);
    }
  }
}

void masks(const Cases& cases, const OracleProblem& base) {
  OracleProblem p = base;
  Mask::Rows rows;  // some see nothing, others nothing of most parts
  rows.intervals.assign(static_cast<std::size_t>(p.seq), RowIntervals{});
  rows.intervals[1] = {KeyInterval{1400, 1401}};
  rows.intervals[2] = {KeyInterval{0, 3}, KeyInterval{2997, p.seq_kv}};
  rows.intervals[4] = {KeyInterval{10, p.seq_kv - 5}};
  p.terms = {rows};
  run(cases, "split rows of intervals", p);
  p.terms = {Mask::Prefix{2900}};
  run(cases, "split prefix", p);
}

void segments(const Cases& cases, const OracleProblem& base) {
  const std::int64_t n = base.seq_kv;
  run(cases, "split odd segments", base, {segments_cut_at(n, {1, 8, 8, 77, 140, 1250})});
  run(cases, "split striped", base, {striped_segments(n, 4)});
  std::vector<std::vector<KeySegment>> parts;
  for (const KeySegment& segment : segments_cut_at(n, {0, 1250, 1250, 1300, 2900})) {
    parts.push_back({segment});
  }
  run(cases, "split resumed", base, parts);
  Case queries{name_of("split query segments", base),
               {make_launch(base, one_segment(base), kGrid)}};
  queries.chain[0].queries = {{0, 0, 3}, {3, 3, 1}, {4, 4, base.seq - 4}};
  run(cases, std::move(queries));
}

}  // namespace

void split_cases(const Cases& cases) {
  head_dims(cases);
  for (const std::int64_t dim : {128, 64}) {
    // Heads of their own, and such as are packed.
    for (const auto& [heads, heads_kv] : {std::pair{3, 3}, {64, 8}}) {
      const OracleProblem p = few_rows(6, 3001, dim, heads, heads_kv);
      masks(cases, p);
      segments(cases, p);
    }
  }
  run(cases, "split query tiles", few_rows(400, 3003, 128, 4, 4));
}

}  // namespace annulus::testing
