// The backward of hopper_backward.cpp without a GPU, as forward.cpp has the forward.
#include "tests/emulate/backward.h"

#include "attention/kernels/operand.h"
#include "attention/kernels/sm90/backward.cuh"
#include "attention/kernels/sm90/schedule.cuh"
#include "attention/kernels/sm90/key_maps.h"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/variant.h"
#include "attention/kernels/tile_index.h"
#include "tests/emulate/copies.h"
#include "tests/emulate/tensor_core.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace annulus::testing {

namespace {

using namespace attn;  // NOLINT
using emulate::Machine;

Emulation g_emulation;
BackwardEmulation g_backward;

void clear_row(const Output& to, std::int64_t batch, std::int64_t token, std::int64_t head,
               std::int64_t dim) {
  const std::int64_t size = size_of(to.dtype);
  std::fill_n(static_cast<std::byte*>(to.data) + offset_of(to, batch, token, head) * size,
              dim * size, std::byte{0});
}

/// What clear_gradients does with KeyGradients::kernel_assigns: dq, and keys that no tile names.
void clear_gradients(const BackwardParams& p, const cuda::Geometry& g) {
  for (std::int64_t b = 0; b < g.batch; ++b) {
    for (std::int64_t h = 0; p.dq_assign && h < g.heads; ++h) {
      for (std::int64_t row = 0; row < g.rows; ++row) {
        clear_row(p.dq, b, token_of_row(p.geometry, row), h, g.head_dim);
      }
    }
    for (int h = 0; p.dkv_assign && h < g.kv_heads; ++h) {
      for (int s = 0; s < g.key_count; ++s) {
        for (std::int64_t j = 0; j < g.keys[s].count; ++j) {
          const bool named =
              std::any_of(p.geometry.tiles.begin(), p.geometry.tiles.end(), [&](const Tile& tile) {
                return tile.segment == s && j >= tile.key && j < tile.key + tile.keys;
              });
          if (named) continue;
          clear_row(p.dk, b, g.keys[s].token + j, h + g.first_kv_head, g.head_dim);
          clear_row(p.dv, b, g.keys[s].token + j, h + g.first_kv_head, g.head_dim_v);
        }
      }
    }
  }
}

CUtensorMap map_of(const sm90::TensorShape& shape, int rows) {
  return {shape.data, shape.extents, shape.strides, rows};
}

struct Run {
  const BackwardParams& params;
  cuda::Geometry geometry;
  sm90::BackwardMaps maps;
  sm90::KeySchedule schedule;
  int* turns;
  unsigned blocks;
};

template <typename T, typename Memory, bool kCapped, bool kOrdered>
void run_blocks(const Run& run) {
  static_assert(sizeof(Memory) <= emulate::kSharedBytes);
  const sm90::Factors factors = sm90::factors_of(run.geometry);
  for (unsigned i = 0; i < run.blocks; ++i) {
    emulate::reset_products();
    Machine machine({g_emulation.seed + i, g_emulation.late});
    machine.run(Memory::kThreads, {i, 0, 0}, {run.blocks, 1, 1}, [&] {
      sm90::run_backward_block<T, Memory, kCapped, kOrdered>(
          run.geometry, run.params, run.maps, run.schedule, factors, run.turns,
          reinterpret_cast<unsigned char*>(machine.shared()));
    });
    emulate::require_no_copies();
  }
}

template <typename T, int kDim, int kDimV>
void run_variant(const Run& run) {
  using Memory = sm90::BackwardShared<kDim, kDimV, sm90::default_backward_tuning(kDim, kDimV)>;
  const bool capped = run.geometry.softcap != 0.0;
  if (g_backward.deterministic) {
    return capped ? run_blocks<T, Memory, true, true>(run)
                  : run_blocks<T, Memory, false, true>(run);
  }
  return capped ? run_blocks<T, Memory, true, false>(run)
                : run_blocks<T, Memory, false, false>(run);
}

template <typename T>
void run_any(const Run& run) {
  if (run.geometry.head_dim == 128) return run_variant<T, 128, 128>(run);
  if (run.geometry.head_dim == 96) return run_variant<T, 96, 96>(run);
  if (run.geometry.head_dim == 256) return run_variant<T, 256, 256>(run);
  if (run.geometry.head_dim == 192) {
    return run.geometry.head_dim_v == 128 ? run_variant<T, 192, 128>(run)
                                          : run_variant<T, 192, 192>(run);
  }
  return run_variant<T, 64, 64>(run);
}

void make_schedule(const cuda::Geometry& g, const sm90::KeySchedule& schedule) {
  *schedule.drawn = 0;
  for (int i = 0; i < g.key_tile_count; ++i) {
    Machine machine({g_emulation.seed, {}});
    machine.run(32, {}, {1, 1, 1}, [&] {
      sm90::place_key_tile(g, schedule, i, machine.thread(), g_backward.deterministic);
    });
  }
}

/// Every key tile of every head was said to be done, once.
void require_done(const std::vector<std::uint32_t>& done, const cuda::Geometry& g) {
  for (std::int32_t h = 0; h < g.kv_heads; ++h) {
    const std::uint32_t said = done[static_cast<std::size_t>(g.first_kv_head + h)];
    if (said != static_cast<std::uint32_t>(g.batch * g.key_tile_count)) {
      throw std::runtime_error("key tiles that were said to be done: " + std::to_string(said));
    }
  }
}

void backward(const BackwardParams& host, const LaunchContext& context) {
  BackwardParams p = host;
  // Half of the launches say how far they are.
  std::vector<std::uint32_t> done(64, 0);
  const bool counted = g_emulation.abort == nullptr && g_emulation.seed % 2 == 1;
  if (counted) p.done = done.data();
  TileIndex index =
      make_tile_index(p.geometry.tiles, {128, sm90::backward_keys(p.geometry.head_dim)});
  JoinedTiles joined;
  if (g_emulation.joined && !g_backward.deterministic) {
    joined = join_tiles(p.geometry.tiles, index);
    index = joined.index;
    p.geometry.tiles = joined.tiles;
  }
  p.geometry.row_tiles = index.row_tiles;
  p.geometry.tiles_by_key = index.tiles_by_key;
  p.geometry.key_tiles = index.key_tiles;
  p.geometry.places = index.places;
  if (!sm90::suits(p)) throw std::runtime_error("the launch would go to flash2");
  LaunchContext with = context;
  with.abort = g_emulation.abort;
  with.waited = g_emulation.waited;
  const cuda::Geometry g = cuda::geometry_of(p.geometry, with);
  clear_gradients(p, g);
  const std::int64_t items = sm90::key_items_of(p.geometry);
  if (items == 0) return;
  int drawn = 0;
  std::vector<sm90::KeyTile> tiles(index.key_tiles.size() - 1, {-1, -1, -1});
  std::vector<int> own;
  std::vector<int>& turns = g_backward.counters != nullptr ? *g_backward.counters : own;
  turns.assign(static_cast<std::size_t>(g.batch * g.heads * 2) * index.row_tiles.size(),
               g_backward.first_turn);
  const int blocks = sm90::blocks_of(items, g_emulation.sms, g_emulation.sm_limit);
  const sm90::Sections sections = sm90::key_sections_of(p.geometry);
  const int keys = sm90::backward_keys(g.head_dim);
  const int rows = sm90::backward_rows(g.head_dim);
  sm90::BackwardMaps maps{map_of(sm90::query_shape(p.q, p.geometry), rows),
                          map_of(sm90::dout_shape(p.dout, p.geometry), rows),
                          map_of(sm90::gradient_shape(p.dq, p.geometry), sm90::kBoxRows),
                          {}};
  sm90::make_key_maps(p, maps.keys, [&](const sm90::TensorShape& shape, DType /*type*/) {
    return map_of(shape, keys);
  });
  const Run run{p,
                g,
                maps,
                {&drawn, tiles.data(), static_cast<std::int32_t>(items), sections.heads,
                 sections.size, sections.count},
                turns.data(),
                static_cast<unsigned>(blocks)};
  make_schedule(run.geometry, run.schedule);
  if (g_backward.before) g_backward.before();
  if (g_backward.launched) g_backward.launched(p);
  if (p.q.dtype == DType::bf16) {
    run_any<sm90::Bf16>(run);
  } else {
    run_any<sm90::Half>(run);
  }
  if (counted) require_done(done, run.geometry);
}

std::int64_t no_workspace(const AttendGeometry& /*g*/, bool /*backward*/, int /*threads*/) {
  return 0;
}

}  // namespace

const Kernel& emulated_backward(const Emulation& emulation, const BackwardEmulation& of_backward) {
  static const Kernel kKernel{.name = "hopper",
                              .backend = "emulated",
                              .tile_q = 128,
                              .tile_k = 128,
                              .workspace_bytes = no_workspace,
                              .forward = emulated_hopper({}).forward,
                              .backward = backward};
  g_emulation = emulation;
  g_backward = of_backward;
  return kKernel;
}

}  // namespace annulus::testing
