#include "tests/gpu/suite_cases.h"

#include "tests/support/random.h"
#include "tests/support/mask_list.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <string_view>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

const std::vector<std::string_view> kAll{"flash2", "flash1", "naive", "reference", "hopper"};
/// Of which hopper wants tiles of its own at other head dims: dims_cases.
const std::vector<std::string_view> kPortable{"flash2", "flash1", "naive", "reference"};
const std::vector<std::string_view> kF32Sums{"flash2", "flash1", "naive", "hopper"};
const std::vector<std::string_view> kFast{"flash2", "hopper"};
constexpr DType kTypes[] = {DType::f32, DType::bf16, DType::f16};

/// Dtype and head dim of the plain path, of tensor cores.
const std::vector<std::pair<DType, std::int64_t>> kPaths{
    {DType::f32, 16}, {DType::bf16, 64}, {DType::f16, 128}};

OracleProblem small_problem(DType dtype, std::int64_t dim, std::vector<Mask::Term> terms) {
  OracleProblem p = problem_of(dtype, 97, dim, 2, 1);
  p.terms = std::move(terms);
  return p;
}

void sizes(const Cases& cases) {
  for (const DType dtype : kTypes) {
    for (const std::int64_t dim : {1, 7, 16, 80, 128}) {
      for (const std::int64_t seq : {1, 7, 130}) {
        OracleProblem p = problem_of(dtype, seq, dim);
        p.batch = 2;
        cases.whole("suite odd sizes", p, kAll);
      }
    }
    for (const auto& [dim, dim_v] : {std::pair{192, 128}, {7, 80}, {80, 1}, {512, 512}}) {
      OracleProblem p = problem_of(dtype, 70, dim, 2, 2);
      p.head_dim_v = dim_v;
      p.terms.clear();
      cases.whole("suite other values", p, kPortable);
    }
    for (const std::int64_t dim : {32, 64, 128}) {
      OracleProblem p = problem_of(dtype, 150, dim, 6, 1);
      p.batch = 2;
      cases.whole("suite one key head", p, kAll);
    }
    cases.whole("suite standing", problem_of(dtype, 613, 128, 24, 8), kF32Sums);
  }
}

void masks(const Cases& cases, DType dtype, std::int64_t dim) {
  for (const auto& terms : masks_of_97()) {
    cases.whole("suite masks", small_problem(dtype, dim, terms), kAll);
  }
  for (const std::int64_t seq_kv : {0, 2, 30, 200}) {
    for (const CausalAlign align : {CausalAlign::bottom_right, CausalAlign::top_left}) {
      OracleProblem p = small_problem(dtype, dim, {Mask::Causal{align}});
      p.seq_kv = seq_kv;
      if (seq_kv == 2) {  // a row or two see any: few errors, the largest of which is luck
        p.heads = 8;
        p.heads_kv = 4;
      }
      cases.whole("suite other keys", p, kAll);
      p.terms = {Mask::Window{9, 2, align}};
      cases.whole("suite other keys", p, kAll);
    }
  }
}

/// Softcaps, logits of ten thousand, scales that are zero or negative: `flash2` and `hopper` leave
/// the last to the plain path.
void scores(const Cases& cases, DType dtype, std::int64_t dim) {
  OracleProblem p = small_problem(dtype, dim, {Mask::Causal{}});
  for (const double softcap : {0.5, 30.0}) {
    p.softcap = softcap;
    cases.whole("suite softcap", p, kAll);
  }
  p.softcap = 0.0;
  for (const double scale : {0.0, -0.3}) {
    p.softmax_scale = scale;
    cases.whole("suite scale", p, kAll);
  }
  // Forward: gradients are the scale times what rounding left of dP - delta.
  p.softmax_scale = 1e4 / std::sqrt(static_cast<double>(dim));
  Case large{name_of("suite large logits", p), {make_launch(p, one_segment(p), kGrid)}};
  large.forward = true;
  cases.run(large, kAll);
  if (dtype == DType::f32) return;
  // Of a hundred rounding leaves as much of either.
  p.softmax_scale = 100.0 / std::sqrt(static_cast<double>(dim));
  cases.whole("suite large logits, both passes", p, kFast);
}

/// Tiles of any size that all kernels take.
void random_problems(const Cases& cases) {
  std::mt19937_64 generator(20240613);
  const auto pick = [&](std::int64_t low, std::int64_t high) {
    return random_between(generator, low, high);
  };
  for (int round = 0; round < 40; ++round) {
    const std::int64_t tensor_dim = 64 * pick(1, 2);
    const bool plain = pick(0, 1) == 0;
    OracleProblem p =
        problem_of(kTypes[pick(0, 2)], pick(1, 160), plain ? pick(1, 70) : tensor_dim);
    if (plain) p.head_dim_v = pick(1, 70);
    p.batch = pick(1, 2);
    p.seq_kv = pick(0, 1) == 0 ? p.seq : pick(0, 200);
    p.heads_kv = pick(1, 3);
    p.heads = p.heads_kv * pick(1, 3);
    p.terms.clear();
    if (pick(0, 2) > 0) p.terms.emplace_back(Mask::Causal{});
    if (pick(0, 2) == 0) p.terms.emplace_back(Mask::Window{pick(-1, 50), pick(-1, 50)});
    if (pick(0, 3) == 0) p.softcap = 2.0;
    const TileGrid grid{pick(1, 128), pick(1, 128)};
    cases.whole("suite random", p, kF32Sums, grid);
  }
}

}  // namespace

void suite_cases(const Cases& cases) {
  sizes(cases);
  for (const auto& [dtype, dim] : kPaths) {
    masks(cases, dtype, dim);
    scores(cases, dtype, dim);
  }
  random_problems(cases);
}

}  // namespace annulus::testing
