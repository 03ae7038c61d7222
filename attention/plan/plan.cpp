#include <annulus/error.h>
#include <annulus/plan.h>

#include "attention/plan/context.h"
#include "attention/plan/gather_exchange.h"
#include "attention/plan/hash.h"
#include "attention/plan/stages.h"
#include "attention/plan/ulysses_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

namespace annulus {
namespace {

using attn::Group;
using attn::HeadRange;

void require(bool holds, const std::string& text) {
  if (!holds) throw InvalidArgument(text);
}

void check_request(const PlanRequest& r) {
  require(
      r.mesh.ring >= 1 && r.mesh.ulysses >= 1,
      fmt::format("mesh ring {} x ulysses {}: degrees must be >= 1", r.mesh.ring, r.mesh.ulysses));
  require(
      r.algorithm != Algorithm::automatic,
      "algorithm auto: is resolved by the session, a plan needs ring, gather, ulysses or hybrid");
  const bool one_group = r.algorithm == Algorithm::ulysses;
  const bool one_member = r.algorithm == Algorithm::ring || r.algorithm == Algorithm::gather;
  require(!one_group || r.mesh.ring == 1,
          fmt::format("algorithm ulysses: mesh ring must be 1, got {}", r.mesh.ring));
  require(!one_member || r.mesh.ulysses == 1,
          fmt::format("algorithm {}: mesh ulysses must be 1, got {}", name_of(r.algorithm),
                      r.mesh.ulysses));
  require(r.options.outer == Algorithm::ring || r.options.outer == Algorithm::gather,
          fmt::format("outer {}: must be ring or gather", name_of(r.options.outer)));
  require(r.options.tile_q >= 1 && r.options.tile_k >= 1,
          fmt::format("tile_q {} tile_k {}: must be >= 1", r.options.tile_q, r.options.tile_k));
  require(r.options.gather_slices >= 0,
          fmt::format("gather_slices {}: must be >= 1, or 0 for chosen", r.options.gather_slices));
  require(
      r.options.ulysses_slices >= 0,
      fmt::format("ulysses_slices {}: must be >= 1, or 0 for chosen", r.options.ulysses_slices));
}

bool gathers(const PlanRequest& r) {
  return r.algorithm == Algorithm::gather ||
         (r.algorithm == Algorithm::hybrid && r.options.outer == Algorithm::gather);
}

Group make_group(const Sharding& sharding, int first_rank, int members) {
  Group g;
  for (int r = first_rank; r < first_rank + members; ++r) {
    g.row_begin.push_back(g.seq);
    g.key_begin.push_back(g.seq_kv);
    const Shard& q = sharding.shard(r);
    const Shard& kv = sharding.shard_kv(r);
    g.rows.insert(g.rows.end(), q.begin(), q.end());
    g.keys.insert(g.keys.end(), kv.begin(), kv.end());
    g.seq += sharding.seq_local(r);
    g.seq_kv += sharding.seq_kv_local(r);
  }
  g.row_begin.push_back(g.seq);
  g.key_begin.push_back(g.seq_kv);
  return g;
}

/// Query heads as even as can be, larger shares first; the key/value heads that they read.
void split_heads(Plan::Impl& impl) {
  const auto members = static_cast<std::int32_t>(impl.request.mesh.ulysses);
  const auto heads = static_cast<std::int32_t>(impl.problem().heads);
  std::int32_t first = 0;
  std::int32_t kv_end = 0;
  for (std::int32_t m = 0; m < members; ++m) {
    const HeadRange q{first, heads / members + (m < heads % members ? 1 : 0)};
    HeadRange kv{std::min(q.first, heads - 1) / impl.group_size(), 0};
    if (q.count > 0) {
      kv.count = (q.end() - 1) / impl.group_size() + 1 - kv.first;
      impl.kv_heads_shared = impl.kv_heads_shared || kv.first < kv_end;
      kv_end = kv.end();
    }
    impl.heads.push_back(q);
    impl.heads_kv.push_back(kv);
    first = q.end();
  }
}

/// Of a mesh of one group: else the ring between groups has what moves under its attends.
void slice_heads(Plan::Impl& impl) {
  const PlanRequest& r = impl.request;
  if (r.mesh.ring > 1 || r.mesh.ulysses == 1) return;
  // Owners add the gradients of a head with several readers.
  if (r.pass == Pass::backward && impl.kv_heads_shared) return;
  const attn::SliceCase c = attn::slice_case(impl);
  const int asked = r.options.ulysses_slices;
  if (asked > 0) {
    impl.slice_ends = attn::even_slices(c.heads, c.unit, asked);
  } else if (r.pass == Pass::backward) {
    // Slices lost where they were measured: docs/performance.md, ulysses on two H200s.
    impl.slice_ends = {c.heads};
  } else {
    impl.slice_ends = attn::best_slices(c);
  }
}

/// Each chunk is sent by all groups but one, its fp32 sum by all.
RingBytes ring_bytes(const Plan::Impl& impl) {
  const Problem& p = impl.problem();
  const std::int64_t hops = impl.request.mesh.ring;
  const std::int64_t f32 = size_of(DType::f32);
  const std::int64_t wide = (p.head_dim + *p.head_dim_v) * size_of(p.dtype);
  const std::int64_t kv = (hops - 1) * wide + hops * (p.head_dim + *p.head_dim_v) * f32;
  const std::int64_t q = (hops - 1) * (wide + 2 * f32) + hops * p.head_dim * f32;
  RingBytes bytes;
  for (std::size_t m = 0; m < impl.heads.size(); ++m) {
    bytes.keys += p.batch * *p.seq_kv * impl.heads_kv[m].count * kv;
    bytes.queries += p.batch * p.seq * impl.heads[m].count * q;
  }
  return bytes;
}

void choose_moves(Plan::Impl& impl) {
  const PlanRequest& r = impl.request;
  if (r.pass == Pass::forward || r.mesh.ring == 1 || gathers(r)) return;
  impl.ring_bytes = ring_bytes(impl);
  const BackwardMoves asked = r.options.backward_moves;
  impl.moves_queries =
      asked == BackwardMoves::queries ||
      (asked == BackwardMoves::automatic && impl.ring_bytes.queries < impl.ring_bytes.keys);
  if (!impl.moves_queries) return;
  for (const Group& group : impl.groups) {
    impl.row_tables.emplace_back(impl.bands, group.rows);
    impl.max_group_seq = std::max(impl.max_group_seq, group.seq);
  }
}

RankPlan build(const Plan::Impl& impl, int rank, attn::Detail detail) {
  const PlanRequest& r = impl.request;
  if (rank < 0 || rank >= r.mesh.world()) {
    throw InvalidArgument(fmt::format("plan: rank {} of {}", rank, r.mesh.world()));
  }
  attn::RankBuilder b(impl, rank, detail);
  const bool alone = r.mesh.ring == 1;
  if (!impl.slice_ends.empty()) {
    (r.pass == Pass::forward ? attn::sliced_forward : attn::sliced_backward)(b);
    return b.finish();
  }
  const bool gather = gathers(r);
  const bool in_place = gather && attn::gathers_in_place(r);
  const std::int64_t kv_tokens = in_place ? attn::tokens_in_place(impl, b.ring_index())
                                 : gather ? b.group().seq_kv
                                          : impl.max_group_seq_kv;
  const bool packs = !alone && !impl.moves_queries && !(gather && attn::pushes_keys(r));
  const attn::GroupTensors t = attn::scatter_heads(b, packs, packs ? kv_tokens : 0);
  if (r.pass == Pass::forward) {
    (alone ? attn::local_forward : gather ? attn::gather_forward : attn::ring_forward)(b, t);
    attn::gather_heads_forward(b, t);
  } else {
    const attn::GroupGradients g = (alone                ? attn::local_backward
                                    : gather             ? attn::gather_backward
                                    : impl.moves_queries ? attn::ring_queries_backward
                                                         : attn::ring_backward)(b, t);
    attn::gather_heads_backward(b, g);
  }
  return b.finish();
}

}  // namespace

std::string_view name_of(Algorithm algorithm) {
  switch (algorithm) {
    case Algorithm::automatic:
      return "auto";
    case Algorithm::ring:
      return "ring";
    case Algorithm::gather:
      return "gather";
    case Algorithm::ulysses:
      return "ulysses";
    case Algorithm::hybrid:
      return "hybrid";
  }
  return "?";
}

std::string_view name_of(BackwardMoves moves) {
  switch (moves) {
    case BackwardMoves::automatic:
      return "auto";
    case BackwardMoves::keys:
      return "keys";
    case BackwardMoves::queries:
      return "queries";
  }
  return "?";
}

std::string_view name_of(Pass pass) { return pass == Pass::forward ? "forward" : "backward"; }

const PlanRequest& Plan::request() const { return impl_->request; }
const Sharding& Plan::sharding() const { return impl_->sharding; }
std::uint32_t Plan::hash() const { return impl_->hash; }
BackwardMoves Plan::backward_moves() const {
  return impl_->moves_queries ? BackwardMoves::queries : BackwardMoves::keys;
}
RingBytes Plan::ring_bytes() const { return impl_->ring_bytes; }

RankPlan Plan::rank(int rank) const { return build(*impl_, rank, attn::Detail::items); }

PlanTotals Plan::totals(int rank) const { return build(*impl_, rank, attn::Detail::totals); }

Plan make_plan(const PlanRequest& request) {
  auto impl = std::make_shared<Plan::Impl>();
  impl->request = request;
  impl->request.problem = resolved(request.problem);
  check_request(request);
  const MeshShape mesh = request.mesh;
  impl->sharding = solve_layout(request.layout, impl->problem(), mesh.world());
  impl->bands = attn::compile_bands(impl->problem());
  for (int g = 0; g < mesh.ring; ++g) {
    impl->groups.push_back(make_group(impl->sharding, g * mesh.ulysses, mesh.ulysses));
    impl->max_group_seq_kv = std::max(impl->max_group_seq_kv, impl->groups.back().seq_kv);
    if (gathers(request)) {
      impl->needed.push_back(attn::RowTable(impl->bands, impl->groups.back().rows).needed_keys());
    }
  }
  split_heads(*impl);
  slice_heads(*impl);
  choose_moves(*impl);
  impl->hash = attn::hash_of(*impl);
  return Plan(std::move(impl));
}

Plan make_plan(const Problem& problem, const Layout& layout, Algorithm algorithm, MeshShape mesh,
               Pass pass) {
  PlanRequest request;
  request.problem = problem;
  request.layout = layout;
  request.algorithm = algorithm;
  request.mesh = mesh;
  request.pass = pass;
  return make_plan(request);
}

}  // namespace annulus
