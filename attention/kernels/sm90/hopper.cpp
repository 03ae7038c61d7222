// The row `hopper` of the dispatch table: what serves a launch, and its tensor maps.
#include "attention/kernels/cuda/launch.h"
#include "attention/kernels/sm90/launch.h"
#include "attention/kernels/sm90/maps.h"
#include "attention/kernels/sm90/setup.h"
#include "attention/kernels/sm90/variant.h"

#include <annulus/error.h>

#include <cuda_runtime_api.h>

#include <string>

namespace annulus::attn::sm90 {

#define ANNULUS_HOPPER_forward(dtype, dim) void hopper_forward_##dtype##_##dim(const Launch&);
#include <hopper_variants.inc>
#undef ANNULUS_HOPPER_forward

namespace {

Variant variant_for(DType type, std::int64_t head_dim) {
#define ANNULUS_HOPPER_forward(dtype, dim) \
  if (type == DType::dtype && head_dim == (dim)) return &hopper_forward_##dtype##_##dim;
#include <hopper_variants.inc>
#undef ANNULUS_HOPPER_forward
  return nullptr;
}

void check(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw DeviceError(std::string(what) + ": " + cudaGetErrorString(status));
  }
}

int attribute(cudaDeviceAttr which) {
  int device = 0;
  int value = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&value, which, device), "cudaDeviceGetAttribute");
  return value;
}

/// Compute capability of the current device, 90 for 9.0; 0 where there is none.
int capability() {
  try {
    return 10 * attribute(cudaDevAttrComputeCapabilityMajor) +
           attribute(cudaDevAttrComputeCapabilityMinor);
  } catch (const DeviceError&) {
    (void)cudaGetLastError();
    return 0;
  }
}

/// Found at run time: the library starts where no driver is.
using Encode = decltype(&cuTensorMapEncodeTiled);
Encode find_encode() {
  void* function = nullptr;
  cudaDriverEntryPointQueryResult found{};
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function,
                                                              12000, cudaEnableDefault, &found);
  if (status != cudaSuccess || found != cudaDriverEntryPointSuccess || function == nullptr) {
    (void)cudaGetLastError();
    throw Unsupported("the CUDA driver has no cuTensorMapEncodeTiled");
  }
  return reinterpret_cast<Encode>(function);
}

/// Boxes of a step's tokens and 64 elements, as layout.cuh has them.
CUtensorMap encode(const Input& operand, const AttendGeometry& g, int tile_keys) {
  static const Encode function = find_encode();
  const TensorShape shape = tensor_shape(operand, g);
  const cuuint32_t box[4] = {64, static_cast<cuuint32_t>(tile_keys), 1, 1};
  const cuuint32_t steps[4] = {1, 1, 1, 1};
  CUtensorMap map;
  const CUresult code =
      function(&map,
               operand.dtype == DType::bf16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                            : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
               4, const_cast<void*>(shape.data), shape.extents.data(), shape.strides.data(), box,
               steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (code != CUDA_SUCCESS) {
    throw DeviceError("cuTensorMapEncodeTiled: CUDA driver error " +
                      std::to_string(static_cast<int>(code)));
  }
  return map;
}

}  // namespace

std::string hopper_refuses(const KernelQuery& query) {
  if (query.head_dim != query.head_dim_v || variant_for(query.dtype, query.head_dim) == nullptr) {
    return "serves bf16 and f16 of head_dim 64 and 128, as far as they are built";
  }
  if (capability() == 90) return "";
  return "needs a GPU of compute capability 9.0";
}

std::int64_t hopper_bytes(const AttendGeometry& g, bool backward, int /*threads*/) {
  if (backward) return cuda::turn_count(g) * static_cast<std::int64_t>(sizeof(int));
  // The index may not be made yet; there are at most as many query tiles as tiles.
  return schedule_bytes(
      static_cast<std::int64_t>(g.row_tiles.empty() ? g.tiles.size() + 1 : g.row_tiles.size()));
}

void launch_forward(const Choice& choice, const ForwardParams& params,
                    const LaunchContext& context) {
  const AttendGeometry& geometry = params.geometry;
  cuda::check_arguments(geometry, context, false, hopper_bytes(geometry, false, 1));
  const std::int64_t items = items_of(geometry);
  if (items == 0 || choice.prelude == Prelude::separate) {
    cuda::fill_unvisited_rows(params, context);
  }
  if (items == 0) return;
  const cuda::Geometry g = cuda::geometry_of(geometry, context);
  const Sections sections = sections_of(geometry);
  std::byte* const workspace = context.workspace.data();
  const Schedule schedule{.drawn = reinterpret_cast<int*>(workspace),
                          .tiles = reinterpret_cast<QueryTile*>(workspace + kCounterBytes),
                          .all = static_cast<std::int32_t>(items),
                          .head_count = sections.heads,
                          .section = sections.size};
  const Maps maps{encode(params.k, geometry, choice.tile_keys),
                  encode(params.v, geometry, choice.tile_keys)};
  if (choice.prelude == Prelude::separate) {
    make_schedule(g, schedule, context.stream);
  } else {
    prepare(g, params, schedule, context.stream);
  }
  const int blocks = blocks_of(items, attribute(cudaDevAttrMultiProcessorCount), context.sm_limit);
  choice.variant(
      {params, g, maps, schedule, blocks, context.stream, choice.prelude == Prelude::overlapped});
}

void hopper_forward(const ForwardParams& params, const LaunchContext& context) {
  const Variant variant = variant_for(params.q.dtype, params.geometry.head_dim);
  if (variant == nullptr || !suits(params)) {
    cuda::flash2_forward(params, context);
    return;
  }
  launch_forward({.variant = variant}, params, context);
}

}  // namespace annulus::attn::sm90
