// The row `hopper`, backward: what serves a launch, its tensor maps and its workspace.
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/driver.h"
#include "attention/kernels/sm90/key_maps.h"
#include "attention/kernels/sm90/launch.h"
#include "attention/kernels/sm90/variant.h"

namespace annulus::attn::sm90 {

#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v)                        \
  void hopper_backward_##dtype##_##dim##_##dim_v(const BackwardLaunch&); \
  KernelEntries hopper_backward_entries_##dtype##_##dim##_##dim_v();
#include <hopper_backward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT

namespace {

/// What serves a type and head dims, if it is built, and the kernels it may launch.
struct Served {
  BackwardVariant launch = nullptr;
  VariantEntries entries = nullptr;
};

Served served(DType type, std::int64_t head_dim, std::int64_t head_dim_v) {
#define ANNULUS_HOPPER_VARIANT(dtype, dim, dim_v)                           \
  if (type == DType::dtype && head_dim == (dim) && head_dim_v == (dim_v)) { \
    return {&hopper_backward_##dtype##_##dim##_##dim_v,                     \
            &hopper_backward_entries_##dtype##_##dim##_##dim_v};            \
  }
#include <hopper_backward_variants.inc>
#undef ANNULUS_HOPPER_VARIANT
  return {};
}

BackwardMaps maps_of(const BackwardParams& p) {
  const AttendGeometry& g = p.geometry;
  const int rows = backward_rows(g.head_dim);
  const int keys = backward_keys(g.head_dim);
  BackwardMaps maps;
  maps.q = encode(query_shape(p.q, g), p.q.dtype, rows);
  maps.dout = encode(dout_shape(p.dout, g), p.dout.dtype, rows);
  maps.dq = encode(gradient_shape(p.dq, g), DType::f32, kBoxRows);
  make_key_maps(p, maps.keys,
                [&](const TensorShape& shape, DType type) { return encode(shape, type, keys); });
  return maps;
}

}  // namespace

KernelEntries backward_entries(const KernelQuery& query) {
  const VariantEntries variant = served(query.dtype, query.head_dim, query.head_dim_v).entries;
  if (variant == nullptr) return {};
  return prepare_backward_entries() + variant();
}

void launch_backward(BackwardVariant variant, const BackwardParams& params,
                     const LaunchContext& context) {
  const AttendGeometry& geometry = params.geometry;
  cuda::check_arguments(geometry, context, true, hopper_bytes(geometry, true, 1));
  (void)cuda::rounds_dkv(params);
  const std::int64_t items = key_items_of(geometry);
  if (items == 0) {
    cuda::begin_flops(context);
    cuda::clear_gradients(params, context, 0, cuda::KeyGradients::kernel_assigns);
    return;
  }
  const cuda::Geometry g = cuda::geometry_of(geometry, context);
  const int blocks = blocks_of(items, multiprocessors(), context.sm_limit);
  const Sections sections = key_sections_of(geometry, context.deterministic ? blocks : 0);
  std::byte* const workspace = context.workspace.data() + turn_bytes(geometry);
  const KeySchedule schedule{.drawn = reinterpret_cast<int*>(workspace),
                             .tiles = reinterpret_cast<KeyTile*>(workspace + kCounterBytes),
                             .all = static_cast<std::int32_t>(items),
                             .head_count = sections.heads,
                             .section = sections.size,
                             .sections = sections.count};
  int* const turns =
      context.deterministic ? reinterpret_cast<int*>(context.workspace.data()) : nullptr;
  const BackwardMaps maps = maps_of(params);
  prepare_backward(g, params, schedule, turns, cuda::turn_count(geometry), context);
  variant({.params = params,
           .geometry = g,
           .maps = maps,
           .schedule = schedule,
           .turns = turns,
           .blocks = blocks,
           .stream = context.stream});
}

void hopper_backward(const BackwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const BackwardVariant variant = served(params.q.dtype, g.head_dim, g.head_dim_v).launch;
  if (variant == nullptr || !suits(params)) {
    cuda::begin_flops(context);
    cuda::flash2_backward(params, context);
    return;
  }
  launch_backward(variant, params, context);
}

}  // namespace annulus::attn::sm90
