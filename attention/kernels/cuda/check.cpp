#include "attention/kernels/cuda/launch.h"

#include <annulus/error.h>

#include <cuda_runtime.h>

#include <algorithm>
#include <mutex>
#include <set>
#include <string>
#include <tuple>

namespace annulus::attn::cuda {

namespace {

void check(cudaError_t status, const std::string& what) {
  if (status != cudaSuccess) throw DeviceError(what + ": " + cudaGetErrorString(status));
}

int current_device() {
  int device = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

/// Kernels of this process that may have more, by device: the driver takes microseconds to be told
/// what it knows.
struct Allowed {
  std::mutex mutex;
  std::set<std::tuple<int, const void*, int>> kernels;
};

Allowed& allowed() {
  static Allowed the_allowed;
  return the_allowed;
}

}  // namespace

void check_launch(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status != cudaSuccess) check(status, std::string("launch of ") + kernel);
}

void allow_shared_memory(const void* kernel, int bytes) {
  const std::tuple key(current_device(), kernel, bytes);
  Allowed& known = allowed();
  const std::scoped_lock lock(known.mutex);
  if (known.kernels.contains(key)) return;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of " + std::to_string(bytes) + " bytes");
  known.kernels.insert(key);
}

void begin_flops(const LaunchContext& context) {
  if (!context.flops_assign || context.flops == nullptr) return;
  check(cudaMemsetAsync(context.flops, 0, sizeof *context.flops,
                        static_cast<cudaStream_t>(context.stream)),
        "FLOP counter to 0");
}

void check_arguments(const AttendGeometry& g, const LaunchContext& context, bool backward,
                     std::int64_t bytes) {
  if (static_cast<std::int64_t>(context.workspace.size()) < bytes) {
    throw InvalidArgument("workspace of " + std::to_string(context.workspace.size()) +
                          " bytes, the launch needs " + std::to_string(bytes));
  }
  if (std::max(g.batch, g.heads) > 65535) {
    throw InvalidArgument("CUDA kernels take up to 65535 batches and heads, not " +
                          std::to_string(g.batch) + " and " + std::to_string(g.heads));
  }
  if (g.rows_arrive && !backward) {
    throw InvalidArgument(
        "query segments with counters are for the backward: the forward reads rows as it is "
        "launched");
  }
  if (g.tiles.empty()) return;
  const bool by_row = !g.row_tiles.empty();
  const bool by_key = g.key_tiles.size() > 1 && !g.tiles_by_key.empty() &&
                      (!context.deterministic || g.places.size() == g.tiles_by_key.size());
  if (!by_row || (backward && !by_key)) {
    throw InvalidArgument("CUDA kernels need the tile index of the launch (make_tile_index)");
  }
}

bool rounds_dkv(const BackwardParams& p) {
  if (p.dk.dtype == DType::f32 && p.dv.dtype == DType::f32) return false;
  if (p.dk.dtype != p.q.dtype || p.dv.dtype != p.q.dtype || !p.dkv_assign) {
    throw InvalidArgument(
        "dk and dv are f32, or where the launch assigns them of the dtype of q, which is " +
        std::string(name_of(p.q.dtype)) + ", not " + std::string(name_of(p.dk.dtype)) + " and " +
        std::string(name_of(p.dv.dtype)));
  }
  return true;
}

std::int64_t turn_count(const AttendGeometry& g) {
  // A launch has at most as many query tiles as tiles; the index may not be made yet.
  const auto tiles =
      static_cast<std::int64_t>(g.row_tiles.empty() ? g.tiles.size() + 1 : g.row_tiles.size());
  return g.batch * g.heads * 2 * tiles;
}

}  // namespace annulus::attn::cuda
