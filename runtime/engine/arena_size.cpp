#include "runtime/engine/arena_size.h"

#include "attention/execute/launches.h"
#include "runtime/engine/request.h"

#include <algorithm>
#include <numeric>
#include <string>
#include <vector>

namespace annulus::engine {

std::int64_t arena_bytes(const Plan& plan, const RankPlan& rank, const attn::Kernel& kernel,
                         int threads) {
  return rank.arena_bytes + attn::workspace_bytes(plan, rank, kernel, threads);
}

namespace {

/// The kernels that the session makes room for. Memory of a GPU is dear: the one that is asked for,
/// which serves both passes where there are two.
std::vector<const attn::Kernel*> candidates(const std::string& name, attn::KernelQuery query,
                                            bool backward) {
  if (query.backend != "cpu") {
    query.backward = backward;
    return {choose_kernel(name, query).kernel};
  }
  std::vector<const attn::Kernel*> list;
  for (const attn::Kernel* kernel : attn::kernels(query.backend)) {
    if (kernel->quadratic_workspace && kernel->name != name) continue;
    if (kernel->refuses(query).empty()) list.push_back(kernel);
  }
  return list;
}

bool gathers(const Decision& decision, Algorithm outer) {
  return decision.algorithm == Algorithm::gather ||
         (decision.algorithm == Algorithm::hybrid && outer == Algorithm::gather);
}

/// Which of them an attention takes depends on its options, and on the transport, which is not
/// chosen yet.
std::vector<GatherLaunch> launches(std::string_view backend, const Decision& decision,
                                   Algorithm outer) {
  if (backend == "cpu" || !gathers(decision, outer) || decision.mesh.ring == 1) {
    return {GatherLaunch::slices};
  }
  return {GatherLaunch::slices, GatherLaunch::on_arrival, GatherLaunch::in_position};
}

/// Slices of ulysses, of which an attention may ask for any number (0: chosen by sizes): what a
/// launch of fewer heads wants need not be less.
std::vector<int> slices(std::string_view backend, const Decision& decision,
                        const Problem& problem) {
  if (backend == "cpu" || decision.mesh.ring > 1 || decision.mesh.ulysses == 1) return {1};
  constexpr std::int64_t kMost = 32;  // plans are made of each
  const std::int64_t heads = (problem.heads + decision.mesh.ulysses - 1) / decision.mesh.ulysses;
  std::vector<int> all(static_cast<std::size_t>(std::min(heads, kMost)) + 1);
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// A session that was told nothing also holds what moved before there was a choice.
std::vector<BackwardMoves> moves(const SessionOptions& options, const Decision& decision,
                                 Pass pass) {
  const BackwardMoves told = options.backward_moves;
  const bool either = pass == Pass::backward && decision.mesh.ring > 1 &&
                      !gathers(decision, options.outer) && told == BackwardMoves::automatic;
  if (!either) return {told};
  return {BackwardMoves::automatic, BackwardMoves::keys};
}

/// Deterministic attentions have keys in order of position, and may hold more of them; others may
/// have them in more pieces.
std::vector<bool> on_grid(GatherLaunch launch, const Decision& decision, Algorithm outer,
                          Pass pass) {
  if (pass == Pass::backward || !gathers(decision, outer)) return {false};
  switch (launch) {
    case GatherLaunch::slices:
      return {false, true};
    case GatherLaunch::on_arrival:
      return {false};
    case GatherLaunch::in_position:
      return {true};
  }
  return {};
}

/// The kernel's own tiles, and those that the session was told.
std::vector<TileChoice> choices(const SessionOptions& options, std::string_view backend,
                                const Decision& decision, const Problem& problem, Pass pass,
                                InPlace in_place) {
  std::vector<TileChoice> all;
  for (const GatherLaunch launch : launches(backend, decision, options.outer)) {
    for (const int count : slices(backend, decision, problem)) {
      for (const BackwardMoves moved : moves(options, decision, pass)) {
        for (const bool grid : on_grid(launch, decision, options.outer, pass)) {
          all.push_back({options.outer, 0, 0, launch, count, moved, grid, in_place});
          if (options.tile_q == 0 && options.tile_k == 0) continue;
          all.push_back({options.outer, options.tile_q, options.tile_k, launch, count, moved, grid,
                         in_place});
        }
      }
    }
  }
  return all;
}

}  // namespace

bool exchanges_in_groups(const Mesh& mesh, const SessionOptions& options) {
  const Problem problem = resolved(options.max_problem);
  return decide(problem, options.layout, options.algorithm, mesh, options.backward).mesh.ulysses >
         1;
}

std::int64_t largest_arena(const Mesh& mesh, const SessionOptions& options,
                           std::string_view backend, InPlace in_place) {
  const Problem problem = resolved(options.max_problem);
  const Decision decision =
      decide(problem, options.layout, options.algorithm, mesh, options.backward);
  std::int64_t bytes = 0;
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    if (pass == Pass::backward && !options.backward) continue;
    const attn::KernelQuery query = attn::kernel_query(problem, pass, backend);
    for (const attn::Kernel* kernel : candidates(options.kernel, query, options.backward)) {
      for (const TileChoice& choice :
           choices(options, backend, decision, problem, pass, in_place)) {
        const Plan plan =
            make_plan(plan_request(problem, options.layout, decision, pass, *kernel, choice));
        bytes =
            std::max(bytes, arena_bytes(plan, plan.rank(mesh.rank()), *kernel, options.threads));
      }
    }
  }
  return bytes;
}

}  // namespace annulus::engine
