// The row `hopper` of the dispatch table, and its forward: what serves a launch.
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/driver.h"
#include "attention/kernels/sm90/kept.h"
#include "attention/kernels/sm90/key_maps.h"
#include "attention/kernels/sm90/launch.h"
#include "attention/kernels/sm90/split.h"
#include "attention/kernels/sm90/tuning.h"
#include "attention/kernels/sm90/variant.h"

#include <algorithm>
#include <string>

namespace annulus::attn::sm90 {

#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v)               \
  void hopper_forward_##dtype##_##dim##_##dim_v(const Launch&); \
  KernelEntries hopper_forward_entries_##dtype##_##dim##_##dim_v();
#include <hopper_forward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT

namespace {

constexpr int kFlash2Rows = 128;  ///< of a tile, at most

/// What serves a type and head dims, if it is built, and the kernels it may launch.
struct Served {
  Variant launch = nullptr;
  VariantEntries entries = nullptr;
};

Served served(DType type, std::int64_t head_dim, std::int64_t head_dim_v) {
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v)                           \
  if (type == DType::dtype && head_dim == (dim) && head_dim_v == (dim_v)) { \
    return {&hopper_forward_##dtype##_##dim##_##dim_v,                      \
            &hopper_forward_entries_##dtype##_##dim##_##dim_v};             \
  }
#include <hopper_forward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
  return {};
}

/// Multiprocessors that a launch may take.
int sms_for(const LaunchContext& context) {
  const int all = multiprocessors();
  return context.sm_limit > 0 ? std::min(context.sm_limit, all) : all;
}

Tuning tuning_of(const AttendGeometry& g) {
  return default_tuning(g.head_dim, g.head_dim_v, g.softcap != 0.0, g.sequence_keys);
}

}  // namespace

std::string hopper_refuses(const KernelQuery& query) {
  if (served(query.dtype, query.head_dim, query.head_dim_v).launch == nullptr) {
    return "serves bf16 and f16 of head dims 64, 96, 128, 192, 256 and 192 with values of 128, as "
           "far as they are built";
  }
  if (!(query.softmax_scale > 0.0)) return "serves a softmax_scale above 0";
  if (capability() == 90) return "";
  return "needs a GPU of compute capability 9.0";
}

TileLimits hopper_tiles(const KernelQuery& query) {
  if (query.backward) return {128, backward_keys(query.head_dim)};
  const Tuning tuning = default_tuning(query.head_dim, query.head_dim_v, query.softcap, query.keys);
  return {tile_rows_of(tuning), tuning.tile_keys};
}

std::int64_t hopper_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  // The index may not be made yet; there are at most as many query tiles, or key tiles, as tiles.
  const std::span<const std::int32_t> index = backward ? g.key_tiles : g.row_tiles;
  const auto tiles = static_cast<std::int64_t>(index.empty() ? g.tiles.size() + 1 : index.size());
  if (backward) return schedule_bytes(tiles) + turn_bytes(g);
  return std::max(schedule_bytes(tiles), most_split_bytes(g, tuning_of(g).tile_keys));
}

std::vector<std::byte> hopper_kept(const AttendGeometry& g) {
  return make_kept(g, tuning_of(g).tile_keys);
}

KernelEntries hopper_entries(const KernelQuery& query) {
  const KernelEntries otherwise = cuda::flash2_entries(query);
  if (query.backward) return otherwise + backward_entries(query);
  const VariantEntries variant = served(query.dtype, query.head_dim, query.head_dim_v).entries;
  if (variant == nullptr) return otherwise;
  return otherwise + prepare_entries() + variant() + merge_entries();
}

void launch_forward(const Choice& choice, const ForwardParams& params,
                    const LaunchContext& context) {
  const AttendGeometry& geometry = params.geometry;
  cuda::check_arguments(geometry, context, false,
                        schedule_bytes(static_cast<std::int64_t>(geometry.row_tiles.size())));
  const std::int64_t items = items_of(geometry);
  if (items == 0 || choice.prelude == Prelude::separate) {
    cuda::begin_flops(context);
    cuda::fill_unvisited_rows(params, context, kMostTileRows);
  }
  if (items == 0) return;
  const cuda::Geometry g = cuda::geometry_of(geometry, context);
  std::byte* const workspace = context.workspace.data();
  const int sms = sms_for(context);
  const Split split =
      split_of(geometry, choice.tile_keys, sms, static_cast<std::int64_t>(context.workspace.size()),
               context.deterministic);
  if (split.merged()) {
    cuda::check_arguments(geometry, context, false, split_bytes(geometry, split));
  }
  const bool overlapped = choice.prelude == Prelude::overlapped;
  const bool kept = overlapped && !geometry.kept.empty() && takes_kept(geometry, split);
  const Schedule schedule = kept ? kept_schedule(geometry, sms, context.flops_assign)
                                 : schedule_in(workspace, geometry, split, sms);
  const Parts parts = parts_in(workspace, geometry, split);
  Maps maps;  // of what no source has, nothing is read
  make_key_maps(params, maps.keys, [&](const TensorShape& shape, DType type) {
    return encode(shape, type, choice.tile_keys);
  });
  if (overlapped && !kept) {
    prepare(g, params, schedule, parts, choice.tile_keys, context.flops_assign, context.stream);
  } else if (!overlapped) {
    make_schedule(g, params.q, schedule, parts, choice.tile_keys, context.stream);
  }
  const ForwardParams told = told_to_blocks(params, parts);
  choice.variant({told, told_to_blocks(g, parts), maps, schedule, std::min(schedule.all, sms),
                  context.stream, kept ? context.behind_kernel : overlapped,
                  geometry.sequence_keys});
  if (split.merged()) merge_parts(g, params, parts, overlapped, context.stream);
}

void hopper_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const Variant variant = served(params.q.dtype, g.head_dim, g.head_dim_v).launch;
  const Tuning tuning = tuning_of(g);
  if (variant != nullptr && suits(params)) {
    launch_forward({variant, tuning.tile_keys}, params, context);
    return;
  }
  cuda::begin_flops(context);
  if (tile_rows_of(tuning) <= kFlash2Rows) {
    cuda::flash2_forward(params, context);
  } else {
    cuda::plain_forward(params, context, tile_rows_of(tuning));
  }
}

}  // namespace annulus::attn::sm90
