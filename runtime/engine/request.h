#pragma once

#include "attention/kernels/dispatch.h"
#include "runtime/engine/session.h"

#include <annulus/attention.h>
#include <annulus/plan.h>

#include <string>
#include <string_view>

namespace annulus::engine {

struct TileChoice {
  Algorithm outer = Algorithm::ring;
  std::int64_t tile_q = 0;  ///< 0: the kernel's own
  std::int64_t tile_k = 0;
  GatherLaunch gather = GatherLaunch::slices;
  int ulysses_slices = 1;  ///< 0: chosen from sizes
  BackwardMoves backward_moves = BackwardMoves::automatic;
  bool keys_on_grid = false;  ///< of forward
  InPlace in_place{};
};

/// The kernel that was asked for, or the best one and why.
struct KernelChoice {
  const attn::Kernel* kernel = nullptr;
  std::string fallback_reason;
};
KernelChoice choose_kernel(const std::string& name, const attn::KernelQuery& query);

PlanRequest plan_request(const Problem& problem, const Layout& layout, const Decision& decision,
                         Pass pass, const attn::Kernel& kernel, const TileChoice& choice);

}  // namespace annulus::engine
