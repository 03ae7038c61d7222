#include "tests/attention/random_request.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::test {
namespace {

Mask random_rows(Random& random, std::int64_t seq, std::int64_t seq_kv) {
  std::vector<RowIntervals> rows(static_cast<std::size_t>(seq));
  for (RowIntervals& row : rows) {
    std::array<std::int64_t, 4> bounds{};
    for (std::int64_t& b : bounds) b = random.between(0, seq_kv);
    std::sort(bounds.begin(), bounds.end());
    if (!random.one_in(4)) row[0] = {bounds[0], bounds[1]};
    if (!random.one_in(4)) row[1] = {bounds[2], bounds[3]};
  }
  return Mask::rows(std::move(rows));
}

/// Each pair by itself, more or less often allowed.
Mask random_dense(Random& random, std::int64_t seq, std::int64_t seq_kv) {
  if (seq == 0) return Mask::lists(KeyLists());
  const std::int64_t rarity = random.between(1, 5);
  const bool inverted = random.one_in(2);
  std::vector<std::uint8_t> allowed(static_cast<std::size_t>(seq * seq_kv));
  for (std::uint8_t& a : allowed) a = random.one_in(rarity) != inverted ? 1 : 0;
  return Mask::dense(allowed, seq);
}

/// Ids that stay for a while and come back.
Mask random_segments(Random& random, std::int64_t seq, std::int64_t seq_kv) {
  const std::int64_t most = random.between(0, 6);
  const std::int64_t stay = random.between(1, 12);
  const auto ids = [&](std::int64_t count) {
    std::vector<std::int64_t> list;
    for (std::int64_t i = 0; i < count; ++i) {
      list.push_back(i == 0 || random.one_in(stay) ? random.between(-1, most) : list.back());
    }
    return list;
  };
  if (seq == seq_kv && random.one_in(2)) return Mask::segments(ids(seq));
  return Mask::segments(ids(seq), ids(seq_kv));
}

Mask random_term(Random& random, std::int64_t seq, std::int64_t seq_kv) {
  const CausalAlign align = random.one_in(2) ? CausalAlign::bottom_right : CausalAlign::top_left;
  switch (random.between(0, seq == seq_kv ? 7 : 6)) {
    case 0:
      return Mask::full();
    case 1:
      return Mask::causal(align);
    case 2:
      return Mask::window(random.between(-1, seq_kv / 2), random.between(-1, seq_kv / 2), align);
    case 3:
      return Mask::prefix(random.between(0, seq_kv + 2), align);
    case 4:
      return random_rows(random, seq, seq_kv);
    case 5:
      return random_dense(random, seq, seq_kv);
    case 6:
      return random_segments(random, seq, seq_kv);
    default:
      return Mask::documents(random_lengths(random, seq), random.one_in(2));
  }
}

MeshShape random_mesh(Random& random, Algorithm algorithm) {
  MeshShape mesh;
  const bool both = algorithm == Algorithm::hybrid;
  if (algorithm != Algorithm::ulysses) {
    mesh.ring = static_cast<int>(random.between(1, both ? 4 : 7));
  }
  if (both || algorithm == Algorithm::ulysses) {
    mesh.ulysses = static_cast<int>(random.between(1, both ? 3 : 7));
  }
  return mesh;
}

}  // namespace

std::vector<std::int64_t> random_lengths(Random& random, std::int64_t seq) {
  std::vector<std::int64_t> lengths;
  while (seq > 0) {
    if (random.one_in(5)) lengths.push_back(0);
    lengths.push_back(random.between(1, random.one_in(3) ? seq : std::min<std::int64_t>(seq, 9)));
    seq -= lengths.back();
  }
  if (random.one_in(3)) lengths.push_back(0);
  return lengths;
}

Mask random_mask(Random& random, std::int64_t seq, std::int64_t seq_kv, int most_terms) {
  Mask mask = Mask::full();
  const std::int64_t terms = random.between(1, most_terms);
  for (std::int64_t t = 0; t < terms; ++t) mask = mask & random_term(random, seq, seq_kv);
  return mask;
}

Problem random_problem(Random& random, std::int64_t longest, int most_terms) {
  const auto length = [&] {
    const std::int64_t usual = random.any_of<std::int64_t>({0, 1, 2, 3, 7, 13, 16, 31, 47, 61});
    return random.one_in(3) ? random.between(0, longest) : std::min(usual, longest);
  };
  Problem p;
  p.seq = length();
  p.seq_kv = random.one_in(2) ? p.seq : length();
  p.mask = random_mask(random, p.seq, *p.seq_kv, most_terms);
  return resolved(p);
}

std::vector<Shard> random_shards(Random& random, std::int64_t seq, int world) {
  std::vector<TokenRange> ranges;
  const std::int64_t stride = random.between(1, 4);
  for (std::int64_t residue = 0; residue < std::min(stride, seq); ++residue) {
    std::int64_t left = (seq - residue + stride - 1) / stride;
    std::int64_t begin = residue;
    while (left > 0) {
      const std::int64_t count = random.between(1, left);
      ranges.push_back({begin, count, stride});
      begin += count * stride;
      left -= count;
    }
  }
  std::shuffle(ranges.begin(), ranges.end(), random.engine());
  std::vector<Shard> shards(static_cast<std::size_t>(world));
  const std::int64_t used = random.between(1, world);
  for (const TokenRange& range : ranges) {
    shards[static_cast<std::size_t>(random.between(0, used - 1))].push_back(range);
  }
  if (random.one_in(4)) shards[0].push_back({0, 0, 1});
  return shards;
}

Layout random_layout(Random& random, const Problem& p, int world) {
  switch (random.between(0, 4)) {
    case 0:
      return Layout::contiguous();
    case 1:
      return Layout::zigzag();
    case 2:
      return Layout::striped();
    case 3:
      return Layout::balanced();
    default:
      break;
  }
  std::vector<Shard> q = random_shards(random, p.seq, world);
  const bool same = *p.seq_kv == p.seq && random.one_in(2);
  return same ? Layout::given(std::move(q))
              : Layout::given(std::move(q), random_shards(random, *p.seq_kv, world));
}

PlanRequest random_request(Random& random) {
  PlanRequest r;
  r.problem = random_problem(random, 40, 2);
  Problem& p = r.problem;
  p.batch = random.between(1, 2);
  p.heads_kv = random.between(1, 4);
  p.heads = *p.heads_kv * random.between(1, 3);
  p.head_dim = random.between(1, 3);
  p.head_dim_v = random.between(1, 3);
  p.softmax_scale.reset();
  p.dtype = random.any_of<DType>({DType::f32, DType::bf16, DType::f16});
  r.algorithm = random.any_of<Algorithm>(
      {Algorithm::ring, Algorithm::gather, Algorithm::ulysses, Algorithm::hybrid});
  r.mesh = random_mesh(random, r.algorithm);
  r.layout = random_layout(random, p, r.mesh.world());
  r.pass = random.one_in(2) ? Pass::forward : Pass::backward;
  r.options.outer = random.one_in(2) ? Algorithm::ring : Algorithm::gather;
  r.options.tile_q = random.any_of<std::int64_t>({1, 3, 4, 8, 64});
  r.options.tile_k = random.any_of<std::int64_t>({1, 3, 4, 8, 64});
  r.options.gather_slices = static_cast<int>(random.between(0, 5));
  r.options.gather_launch = random.any_of<GatherLaunch>(
      {GatherLaunch::slices, GatherLaunch::on_arrival, GatherLaunch::in_position});
  r.options.ulysses_slices = static_cast<int>(random.between(0, 4));
  r.options.resume = !random.one_in(3);
  r.options.stage_caller = random.one_in(3);
  r.options.rounded_dkv = random.one_in(2);
  r.options.backward_moves = random.any_of<BackwardMoves>(
      {BackwardMoves::automatic, BackwardMoves::keys, BackwardMoves::queries});
  r.options.keys_on_grid = random.one_in(3);
  r.options.give_in_place = random.one_in(2);
  r.options.land_in_place = random.one_in(2);
  return r;
}

std::string words(const PlanRequest& r) {
  const Problem& p = r.problem;
  return fmt::format(
      "{} {} (outer {}) mesh {}x{} layout {} mask {} batch {} seq {} seq_kv {} heads {}:{} dims "
      "{},{} {} tiles {}x{} slices {} {} launch {} resume {} stage {} rounded {} moves {} on grid "
      "{} in place {} {}",
      name_of(r.algorithm), name_of(r.pass), name_of(r.options.outer), r.mesh.ring, r.mesh.ulysses,
      r.layout.name(), p.mask.name(), p.batch, p.seq, p.seq_kv.value_or(p.seq), p.heads,
      p.heads_kv.value_or(p.heads), p.head_dim, p.head_dim_v.value_or(p.head_dim), name_of(p.dtype),
      r.options.tile_q, r.options.tile_k, r.options.gather_slices, r.options.ulysses_slices,
      static_cast<int>(r.options.gather_launch), r.options.resume, r.options.stage_caller,
      r.options.rounded_dkv, name_of(r.options.backward_moves), r.options.keys_on_grid,
      r.options.give_in_place, r.options.land_in_place);
}

}  // namespace annulus::test
