#include "tests/gpu/dims_cases.h"

#include "attention/kernels/cuda/table.h"

namespace annulus::testing {

namespace {

using attn::KeySegment;

const std::vector<std::string_view> kHopper{"hopper"};

/// The tiles that plans of a pass would have. Forward takes those of backward too.
TileGrid own_grid(const OracleProblem& p, bool backward) {
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name != "hopper") continue;
    const attn::TileLimits tiles =
        attn::tiles_for(*kernel, {p.dtype, p.head_dim, p.head_dim_v, backward, "cuda"});
    return {tiles.rows, tiles.keys};
  }
  return kGrid;
}

void run(const Cases& cases, const char* what, const OracleProblem& p,
         const std::vector<std::vector<KeySegment>>& launches,
         const RunOptions& options = {.gap = 8, .gap_step = 8}) {
  Case c{name_of(what, p), {}, options};
  for (const auto& keys : launches) c.chain.push_back(make_launch(p, keys, own_grid(p, true)));
  cases.run(c, kHopper);
}

void run(const Cases& cases, const char* what, const OracleProblem& p) {
  run(cases, what, p, {one_segment(p)});
}

void lengths(const Cases& cases, const OracleProblem& base) {
  OracleProblem p = base;
  for (const std::int64_t seq : {1, 7, 130, 613}) {
    p.seq = p.seq_kv = seq;
    p.terms = {Mask::Causal{}};
    run(cases, "dims causal", p);
    p.terms.clear();
    run(cases, "dims full", p);
  }
  p.dtype = DType::f16;
  run(cases, "dims full", p);
  p.terms = {Mask::Causal{}};
  run(cases, "dims causal", p);
  // More items than blocks that stay, many of them of one step.
  p = base;
  p.batch = 4;
  p.heads = 24;
  p.heads_kv = 8;
  p.terms = {Mask::Documents{{100, 0, 37, 1, 162}, true}};
  run(cases, "dims many", p);
  p = base;
  p.seq = p.seq_kv = 613;
  Case own{name_of("dims own tiles", p), {make_launch(p, one_segment(p), own_grid(p, false))}};
  own.forward = true;
  cases.run(own, kHopper);
}

void masks(const Cases& cases, const OracleProblem& base) {
  OracleProblem p = base;
  p.terms = {Mask::Window{100, 0}};
  run(cases, "dims window", p);
  Mask::Rows rows;  // half of the rows see nothing, others two intervals
  for (std::int64_t i = 0; i < p.seq; ++i) {
    rows.intervals.push_back(
        i % 2 == 0 || (i > 128 && i < 270)
            ? RowIntervals{}
            : RowIntervals{KeyInterval{i / 4, i / 2}, KeyInterval{i / 2 + 3, i / 2 + 90}});
  }
  p.terms = {rows};
  run(cases, "dims rows", p);
  p.terms = {Mask::Causal{}};
  p.softcap = 5.0;
  run(cases, "dims softcap", p);
  p.dtype = DType::f16;
  run(cases, "dims softcap", p);
}

void cuts(const Cases& cases, const OracleProblem& base) {
  OracleProblem p = base;
  const std::int64_t n = p.seq_kv;
  run(cases, "dims odd segments", p, {segments_cut_at(n, {1, 8, 8, 77, 140, 250})});
  p.terms.emplace_back(Mask::Window{150, 0});
  run(cases, "dims striped", p, {striped_segments(n, 4)});
  p = base;
  std::vector<std::vector<KeySegment>> parts;
  for (const KeySegment& segment : segments_cut_at(n, {0, 120, 120, 230}))
    parts.push_back({segment});
  run(cases, "dims resumed", p, parts);
  run(cases, "dims misaligned", p, {one_segment(p)}, {.gap = 3});
  Case queries{name_of("dims query segments", p),
               {make_launch(p, one_segment(p), own_grid(p, true))}};
  queries.chain[0].queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, p.seq - 101}};
  cases.run(queries, kHopper);
}

}  // namespace

void dims_cases(const Cases& cases) {
  for (const auto& [dim, dim_v] : {std::pair{96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    OracleProblem p = problem_of(DType::bf16, 300, dim);
    p.head_dim_v = dim_v;
    lengths(cases, p);
    masks(cases, p);
    cuts(cases, p);
  }
}

}  // namespace annulus::testing
