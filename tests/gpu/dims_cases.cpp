#include "tests/gpu/dims_cases.h"

#include "attention/kernels/cuda/table.h"
#include "tests/support/mask_list.h"

#include <cmath>
#include <string_view>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

using attn::KeySegment;

const std::vector<std::string_view> kHopper{"hopper"};

}  // namespace

TileGrid own_grid(const OracleProblem& p, bool backward) {
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name != "hopper") continue;
    const attn::TileLimits tiles =
        attn::tiles_for(*kernel, {p.dtype, p.head_dim, p.head_dim_v, backward, "cuda"});
    return {tiles.rows, tiles.keys};
  }
  return kGrid;
}

namespace {

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
  p.terms = {Mask::Prefix{150}};
  run(cases, "dims prefix", p);
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

/// Of 97 queries. Masks take turns with the head dims: the emulated kernels have each with each.
void small_problems(const Cases& cases, const OracleProblem& base, std::size_t turn) {
  OracleProblem p = base;
  p.heads = 2;
  p.heads_kv = 1;
  p.seq = p.seq_kv = 97;
  const auto all = masks_of_97();
  for (std::size_t i = 2; i < all.size(); ++i) {  // behind full and causal, which lengths() has
    if (i % 4 != turn) continue;
    p.terms = all[i];
    run(cases, "dims masks", p);
  }
  p.terms = {Mask::Causal{}};
  p.seq_kv = 0;
  run(cases, "dims no key", p);
  // Aligned at the top left, later keys are seen by nobody; at the bottom right, first rows see
  // nothing.
  p.seq_kv = turn % 2 == 0 ? 200 : 30;
  p.terms = {Mask::Causal{turn % 2 == 0 ? CausalAlign::top_left : CausalAlign::bottom_right}};
  run(cases, "dims other keys", p);
  p.seq_kv = 97;
  p.terms = {Mask::Causal{}};
  p.softmax_scale = turn % 2 == 0 ? 0.0 : -0.3;  // the plain path's
  run(cases, "dims scale", p);
  p.softmax_scale = 100.0 / std::sqrt(static_cast<double>(p.head_dim));
  run(cases, "dims large logits", p);
}

/// Later keys are seen by half of the rows only, and come in the last launch or in the first.
void half_unvisited(const Cases& cases, OracleProblem p, bool first) {
  p.heads = 2;
  p.heads_kv = 1;
  p.seq = p.seq_kv = 613;
  std::vector<std::vector<KeySegment>> halves;
  for (const KeySegment& segment : segments_cut_at(p.seq_kv, {300})) halves.push_back({segment});
  if (first) std::swap(halves[0], halves[1]);
  run(cases, first ? "dims half unvisited first" : "dims half unvisited last", p, halves);
}

/// Two launches name all keys, each with its part of the tiles: dk and dv add up.
void added(const Cases& cases, const OracleProblem& p) {
  Case c{name_of("dims added key gradients", p), {}};
  c.chain.assign(2, make_launch(p, one_segment(p), own_grid(p, true)));
  for (std::size_t i = 0; i < 2; ++i) {
    std::erase_if(c.chain[i].tiles, [&](const attn::Tile& t) { return (t.key < 128) != (i == 0); });
  }
  c.options.add_key_gradients = true;
  cases.run(c, kHopper);
}

void cuts(const Cases& cases, const OracleProblem& base) {
  OracleProblem p = base;
  const std::int64_t n = p.seq_kv;
  run(cases, "dims odd segments", p, {segments_cut_at(n, {1, 8, 8, 77, 140, 250})});
  run(cases, "dims three tensors", p,
      {from_sources(segments_cut_at(n, {1, 8, 8, 77, 140, 250}), 3)});
  p.terms.emplace_back(Mask::Window{150, 0});
  run(cases, "dims striped", p, {striped_segments(n, 4)});
  p = base;
  std::vector<std::vector<KeySegment>> parts;
  for (const KeySegment& segment : segments_cut_at(n, {0, 120, 120, 230}))
    parts.push_back({segment});
  run(cases, "dims resumed", p, parts);
  run(cases, "dims misaligned", p, {one_segment(p)}, {.gap = 3});
  run(cases, "dims heads first", p, {one_segment(p)},
      {.gap = 8, .gap_step = 8, .heads_first = true});
  added(cases, p);
  Case queries{name_of("dims query segments", p),
               {make_launch(p, one_segment(p), own_grid(p, true))}};
  queries.chain[0].queries = {{0, 0, 100}, {100, 100, 1}, {101, 101, p.seq - 101}};
  cases.run(queries, kHopper);
}

}  // namespace

void dims_cases(const Cases& cases) {
  std::size_t turn = 0;
  for (const auto& [dim, dim_v] : {std::pair{96, 96}, {192, 128}, {192, 192}, {256, 256}}) {
    OracleProblem p = problem_of(DType::bf16, 300, dim);
    p.head_dim_v = dim_v;
    lengths(cases, p);
    masks(cases, p);
    cuts(cases, p);
    small_problems(cases, p, turn);
    half_unvisited(cases, p, turn % 2 == 1);
    ++turn;
  }
}

}  // namespace annulus::testing
