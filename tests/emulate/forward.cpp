// hopper.cpp without a GPU: the same setup, with emulated blocks for launches. Compiled with
// cuda_shim.h before it and device/ before the repository's root, so that the kernel's includes of
// ptx.cuh and wgmma.cuh find those of the host.
#include "tests/emulate/forward.h"

#include "attention/kernels/operand.h"
#include "attention/kernels/sm90/block.cuh"
#include "attention/kernels/sm90/kept.h"
#include "attention/kernels/sm90/merge.cuh"
#include "attention/kernels/sm90/pack.cuh"
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/key_maps.h"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/split.h"
#include "attention/kernels/tile_index.h"
#include "tests/emulate/copies.h"
#include "tests/emulate/tensor_core.h"
#include "tests/support/hopper_candidates.h"

#include <algorithm>
#include <cstring>
#include <mutex>
#include <stdexcept>

namespace annulus::testing {

namespace {

using namespace attn;  // NOLINT
using emulate::Machine;

Emulation g_emulation;
attn::sm90::Split g_split;  // of the last launch

/// Rows that no tile names, as fill.cu has it.
void fill_unvisited_rows(const ForwardParams& p) {
  const AttendGeometry& g = p.geometry;
  std::vector<bool> visited(static_cast<std::size_t>(g.rows), false);
  for (const Tile& tile : g.tiles) {
    for (std::int32_t r = 0; r < tile.rows; ++r)
      visited[static_cast<std::size_t>(tile.row + r)] = true;
  }
  for (std::int64_t b = 0; b < g.batch; ++b) {
    for (std::int64_t h = 0; h < g.heads; ++h) {
      for (std::int64_t row = 0; row < g.rows; ++row) {
        if (visited[static_cast<std::size_t>(row)]) continue;
        const std::int64_t token = token_of_row(g, row);
        float& lse = static_cast<float*>(p.lse.data)[offset_of(p.lse, b, token, h)];
        const bool seen = p.resume && lse != -cuda::kInfinity;
        for (std::int64_t d = 0; d < g.head_dim_v; ++d) {
          float& state = static_cast<float*>(p.state.data)[offset_of(p.state, b, token, h) + d];
          if (!seen) state = 0.0F;
          if (p.finish) {
            const auto bits = p.out.dtype == DType::bf16 ? f32_to_bf16(seen ? state : 0.0F)
                                                         : f32_to_f16(seen ? state : 0.0F);
            static_cast<std::uint16_t*>(p.out.data)[offset_of(p.out, b, token, h) + d] = bits;
          }
        }
        if (!seen) lse = -cuda::kInfinity;
      }
    }
  }
}

CUtensorMap map_of(const sm90::TensorShape& shape, int tile_keys) {
  return {shape.data, shape.extents, shape.strides, tile_keys};
}

struct Run {
  const ForwardParams& params;
  cuda::Geometry geometry;
  sm90::Maps maps;
  sm90::Schedule schedule;
  unsigned blocks;
};

template <typename T, int kDim, int kDimV, bool kCapped,
          sm90::Tuning kTuning = sm90::default_tuning(kDim, kDimV, kCapped)>
void run_blocks(const Run& run) {
  static_assert(sizeof(sm90::Shared<kDim, kDimV, kTuning>) <= emulate::kSharedBytes);
  for (unsigned i = 0; i < run.blocks; ++i) {
    emulate::reset_products();
    Machine machine({g_emulation.seed + i, g_emulation.late});
    machine.run(sm90::threads_of(kTuning), {i, 0, 0}, {run.blocks, 1, 1}, [&] {
      sm90::run_block<T, kDim, kDimV, kTuning, kCapped>(
          run.geometry, run.params, run.maps, run.schedule,
          reinterpret_cast<unsigned char*>(machine.shared()));
    });
    emulate::require_no_copies();
  }
}

struct Candidate {
  std::string_view name;
  sm90::Tuning tuning;
  void (*run)(const Run&);  ///< bf16, no softcap
};
#define ANNULUS_CANDIDATE(name, dim)                  \
  Candidate{#name "_" #dim, candidates::name##_##dim, \
            &run_blocks<sm90::Bf16, dim, dim, false, candidates::name##_##dim>},
constexpr Candidate kCandidates[] = {ANNULUS_HOPPER_CANDIDATES(ANNULUS_CANDIDATE)};
#undef ANNULUS_CANDIDATE

/// None: what is launched.
const Candidate* candidate() {
  if (g_emulation.candidate.empty()) return nullptr;
  for (const Candidate& c : kCandidates) {
    if (c.name == g_emulation.candidate) return &c;
  }
  throw std::runtime_error("no such candidate");
}

TileLimits tiles_of(std::int64_t dim, std::int64_t dim_v, bool capped, std::int64_t keys) {
  const sm90::Tuning tuning =
      candidate() != nullptr ? candidate()->tuning : sm90::default_tuning(dim, dim_v, capped, keys);
  return {sm90::tile_rows_of(tuning), tuning.tile_keys};
}

/// True where the launch is of these head dims.
template <int kDim, int kDimV>
bool run_variant(const Run& run) {
  if (run.geometry.head_dim != kDim || run.geometry.head_dim_v != kDimV) return false;
  const bool capped = run.geometry.softcap != 0.0;
  if constexpr (sm90::has_short_steps(kDim, false, sm90::kShortKeys)) {
    if (sm90::has_short_steps(kDim, capped, run.params.geometry.sequence_keys)) {
      if (run.params.q.dtype != DType::bf16) throw std::runtime_error("short steps: bf16 alone");
      run_blocks<sm90::Bf16, kDim, kDimV, false,
                 sm90::default_tuning(kDim, kDimV, false, sm90::kShortKeys)>(run);
      return true;
    }
  }
  if (run.params.q.dtype == DType::bf16) {
    capped ? run_blocks<sm90::Bf16, kDim, kDimV, true>(run)
           : run_blocks<sm90::Bf16, kDim, kDimV, false>(run);
  } else {
    capped ? run_blocks<sm90::Half, kDim, kDimV, true>(run)
           : run_blocks<sm90::Half, kDim, kDimV, false>(run);
  }
  return true;
}

void run_any(const Run& run) {
  if (const Candidate* c = candidate()) return c->run(run);
  if (!run_variant<128, 128>(run) && !run_variant<64, 64>(run) && !run_variant<96, 96>(run) &&
      !run_variant<192, 128>(run) && !run_variant<192, 192>(run) && !run_variant<256, 256>(run)) {
    throw std::runtime_error("no such head dims");
  }
}

void make_schedule(const cuda::Geometry& g, const sm90::Schedule& schedule, const Input& q,
                   const sm90::Parts& parts, int step_keys) {
  *schedule.drawn = 0;
  for (int i = 0; i < 5; ++i) sm90::pack_heads(g, q, parts, i, 5);
  for (int i = 0; i < g.row_tile_count; ++i) {
    Machine machine({g_emulation.seed, {}});
    machine.run(32, {}, {1, 1, 1}, [&] {
      if (parts.tiles == nullptr) {
        sm90::place_query_tile<false>(g, schedule, parts, i, machine.thread(), step_keys);
      } else {
        sm90::place_query_tile<true>(g, schedule, parts, i, machine.thread(), step_keys);
      }
    });
  }
}

/// The schedule that is kept from call to call, in `made`. It has the order that the one made
/// before the launch has.
sm90::Schedule keep(AttendGeometry& geometry, const sm90::Schedule& made_before, int step_keys,
                    int sms, std::vector<std::byte>& made) {
  made = sm90::make_kept(geometry, step_keys);
  geometry.kept = made;
  const sm90::Schedule kept = sm90::kept_schedule(geometry, sms, g_emulation.flops_assign);
  if (std::memcmp(kept.tiles, made_before.tiles,
                  (geometry.row_tiles.size() - 1) * sizeof(sm90::QueryTile)) != 0) {
    throw std::runtime_error("the host's order of query tiles is another");
  }
  return kept;
}

void require_as_found(const sm90::Kept& kept) {
  if (kept.drawn != 0 || kept.left != 0 || kept.flops != 0) {
    throw std::runtime_error("a launch left its counters changed");
  }
}

/// merge.cu, a warp at a time.
void merge_parts(const cuda::Geometry& g, const ForwardParams& p, const sm90::Parts& parts) {
  for (int i = 0; i < g.row_tile_count * parts.tile_rows; ++i) {
    for (int head = 0; head < g.heads / parts.group; ++head) {
      for (int batch = 0; batch < g.batch; ++batch) {
        Machine machine({g_emulation.seed, {}});
        machine.run(32, {}, {1, 1, 1}, [&] {
          sm90::merge_row(g, p, parts, i / parts.tile_rows, i % parts.tile_rows, head, batch,
                          machine.thread());
        });
      }
    }
  }
}

std::mutex g_launching;  // ranks are threads; emulated products have one memory

void forward(const ForwardParams& host, const LaunchContext& context) {
  const std::scoped_lock lock(g_launching);
  ForwardParams p = host;
  const TileLimits most = tiles_of(p.geometry.head_dim, p.geometry.head_dim_v,
                                   p.geometry.softcap != 0.0, p.geometry.sequence_keys);
  const auto tile_keys = static_cast<int>(most.keys);
  JoinedTiles lists;
  // The executor has made its own.
  if (p.geometry.row_tiles.empty()) {
    // Either pass may be what the lists are for: the loader cuts what is longer than a step.
    lists.index =
        make_tile_index(p.geometry.tiles, {most.rows, std::max<std::int64_t>(128, most.keys)});
    if (g_emulation.joined) {
      lists = join_tiles(p.geometry.tiles, lists.index);
      p.geometry.tiles = lists.tiles;
    }
    p.geometry.row_tiles = lists.index.row_tiles;
    p.geometry.covered_rows = lists.index.covered_rows;
  }
  if (!sm90::suits(p)) throw std::runtime_error("the launch would go to flash2");
  fill_unvisited_rows(p);
  const std::int64_t items = sm90::items_of(p.geometry);
  if (items == 0) return;
  LaunchContext with = context;
  with.abort = g_emulation.abort;
  with.waited = g_emulation.waited;
  with.deterministic = context.deterministic || g_emulation.deterministic;
  const int sms =
      g_emulation.sm_limit > 0 ? std::min(g_emulation.sm_limit, g_emulation.sms) : g_emulation.sms;
  std::vector<std::byte> workspace(static_cast<std::size_t>(
      std::max(sm90::schedule_bytes(static_cast<std::int64_t>(p.geometry.row_tiles.size())),
               sm90::most_split_bytes(p.geometry, tile_keys))));
  g_split = sm90::split_of(p.geometry, tile_keys, sms, static_cast<std::int64_t>(workspace.size()),
                           with.deterministic);
  if (g_split.merged() &&
      static_cast<std::int64_t>(workspace.size()) < sm90::split_bytes(p.geometry, g_split)) {
    throw std::runtime_error("the workspace that was asked for is too small");
  }
  if (g_emulation.split) {
    g_split = *g_emulation.split;
    workspace.resize(static_cast<std::size_t>(sm90::split_bytes(p.geometry, g_split)));
  }
  const sm90::Split split = g_split;
  std::fill(workspace.begin(), workspace.end(), std::byte{0xff});
  const sm90::Parts parts = sm90::parts_in(workspace.data(), p.geometry, split);
  const ForwardParams told = sm90::told_to_blocks(p, parts);
  const sm90::Schedule schedule = sm90::schedule_in(workspace.data(), p.geometry, split, sms);
  // What a former launch left: an item that is not this one's.
  std::fill_n(schedule.tiles, schedule.all / schedule.head_count,
              sm90::QueryTile{0, 1, 0, 1, 1, 0, 0, 0});
  const cuda::Geometry g = cuda::geometry_of(p.geometry, with);
  Run run{told,
          sm90::told_to_blocks(g, parts),
          {},
          schedule,
          static_cast<unsigned>(std::min(schedule.all, sms))};
  sm90::make_key_maps(p, run.maps.keys, [&](const sm90::TensorShape& shape, DType /*type*/) {
    return map_of(shape, tile_keys);
  });
  make_schedule(g, schedule, p.q, parts, tile_keys);
  std::vector<std::byte> made;
  if (g_emulation.kept && sm90::takes_kept(p.geometry, split)) {
    run.schedule = keep(p.geometry, schedule, tile_keys, sms, made);
    if (run.schedule.flops_assign && context.flops != nullptr) *context.flops = 9;
  }
  run_any(run);
  if (run.schedule.kept != nullptr) require_as_found(*run.schedule.kept);
  if (split.merged()) merge_parts(g, p, parts);
}

std::int64_t no_workspace(const AttendGeometry& /*g*/, bool /*backward*/, int /*threads*/) {
  return 0;
}

}  // namespace

const Kernel& emulated_hopper(const Emulation& emulation) {
  static const Kernel kernel{.name = "hopper",
                             .backend = "emulated",
                             .tiles =
                                 [](const KernelQuery& query) {
                                   return tiles_of(query.head_dim, query.head_dim_v, query.softcap,
                                                   query.keys);
                                 },
                             .joined_tiles = true,
                             .workspace_bytes = no_workspace,
                             .forward = forward};
  g_emulation = emulation;
  return kernel;
}

attn::sm90::Split emulated_split() { return g_split; }

}  // namespace annulus::testing
