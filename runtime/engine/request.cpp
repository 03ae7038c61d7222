#include "runtime/engine/request.h"

#include "attention/execute/launches.h"

#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus::engine {
namespace {

/// Enough that copies hide under the first slices, few enough that launches fill the GPU.
constexpr int kDeviceSlices = 2;
/// Backward at once holds the parts of dK/dV of all other ranks. Where that is more, a few at a
/// time.
constexpr std::int64_t kMostReturned = std::int64_t{4} << 30;

bool at_once_is_small(const Problem& p, int world, Pass pass) {
  if (pass == Pass::forward) return true;
  const std::int64_t shard = p.batch * (*p.seq_kv / world) * *p.heads_kv * 4;
  return shard * (p.head_dim + *p.head_dim_v) * (world - 1) <= kMostReturned;
}

}  // namespace

KernelChoice choose_kernel(const std::string& name, const attn::KernelQuery& query) {
  try {
    const attn::Kernel& kernel = attn::find_kernel(name, query);
    const attn::Kernel& best = *attn::kernels(query.backend).front();
    if (name != "auto" || &kernel == &best) return {&kernel, {}};
    return {&kernel, fmt::format("{}, the best one: {}", best.name, best.refuses(query))};
  } catch (const Unsupported& error) {
    if (name == "auto") throw;
    return {&attn::find_kernel("auto", query), error.what()};
  }
}

PlanRequest plan_request(const Problem& problem, const Layout& layout, const Decision& decision,
                         Pass pass, const attn::Kernel& kernel, const TileChoice& choice) {
  PlanRequest request;
  request.problem = problem;
  request.layout = layout;
  request.algorithm = decision.algorithm;
  request.mesh = decision.mesh;
  request.pass = pass;
  request.options.outer = choice.outer;
  request.options.ulysses_slices = choice.ulysses_slices;
  request.options.backward_moves = choice.backward_moves;
  request.options.keys_on_grid = choice.keys_on_grid && pass == Pass::forward;
  const attn::KernelQuery query = attn::kernel_query(problem, pass, kernel.backend);
  request.options.rounded_dkv =
      pass == Pass::backward && kernel.rounds_dkv != nullptr && kernel.rounds_dkv(query);
  const attn::TileLimits tiles = attn::tiles_for(kernel, query);
  request.options.tile_q = choice.tile_q > 0 ? choice.tile_q : tiles.rows;
  request.options.tile_k = choice.tile_k > 0 ? choice.tile_k : tiles.keys;
  // Transfers between GPUs read and write the arena, since peers cannot address a caller's tensors;
  // those that this rank moves may have its end there.
  request.options.stage_caller = kernel.backend != "cpu";
  request.options.give_in_place = choice.in_place.gives;
  request.options.land_in_place = choice.in_place.lands;
  if (at_once_is_small(problem, decision.mesh.world(), pass)) {
    request.options.gather_launch = choice.gather;
  }
  // A launch a slice: with few heads the last of its blocks run alone.
  if (kernel.backend != "cpu" && request.options.gather_launch == GatherLaunch::slices) {
    request.options.gather_slices = kDeviceSlices;
  }
  return request;
}

}  // namespace annulus::engine
