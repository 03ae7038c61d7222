#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <thread>

namespace annulus::launch {
namespace {

bool between_devices(std::string_view transport) {
  return transport == "peer" || transport == "nccl" || transport == "composite";
}

Algorithm algorithm_named(std::string_view name) {
  if (name == "ring") return Algorithm::ring;
  if (name == "gather") return Algorithm::gather;
  if (name == "ulysses") return Algorithm::ulysses;
  if (name == "hybrid") return Algorithm::hybrid;
  return Algorithm::automatic;
}

/// The degree that the algorithm and `ulysses_degree` leave.
int ulysses_degree(const Settings& settings, Algorithm algorithm, int world) {
  const auto given = settings.maybe_integer("ulysses_degree");
  const auto refuse = [&](std::string_view allowed) {
    settings.refuse("ulysses_degree",
                    fmt::format("does not fit algorithm {} on {} ranks; allowed: {}",
                                name_of(algorithm), world, allowed));
  };
  switch (algorithm) {
    case Algorithm::ring:
    case Algorithm::gather:
      if (given.value_or(1) != 1) refuse("1");
      return 1;
    case Algorithm::ulysses:
      if (given.value_or(world) != world) refuse(fmt::format("{}, the world", world));
      return world;
    case Algorithm::hybrid:
      if (!given) settings.refuse("algorithm", "needs ulysses_degree, a divisor of the world");
      break;
    case Algorithm::automatic:
      if (!given) return 1;
      break;
  }
  if (*given > world || world % *given != 0) refuse("a divisor of the world");
  return static_cast<int>(*given);
}

}  // namespace

Algorithm algorithm_of(const Settings& settings) {
  return algorithm_named(settings.text("algorithm"));
}

Algorithm outer_of(const Settings& settings) { return algorithm_named(settings.text("outer")); }

BackwardMoves backward_moves_of(const Settings& settings) {
  const std::string& name = settings.text("backward_moves");
  if (name == "keys") return BackwardMoves::keys;
  if (name == "queries") return BackwardMoves::queries;
  return BackwardMoves::automatic;
}

Layout layout_of(const Settings& settings) {
  const std::string& name = settings.text("layout");
  if (name == "contiguous") return Layout::contiguous();
  if (name == "striped") return Layout::striped();
  if (name == "balanced") return Layout::balanced();
  return Layout::zigzag();
}

MeshShape mesh_of(const Settings& settings, int world) {
  const int ulysses = ulysses_degree(settings, algorithm_of(settings), world);
  return {.ring = world / ulysses, .ulysses = ulysses, .expert = 1};
}

std::vector<Pass> passes_of(const Settings& settings) {
  const std::string& name = settings.text("pass");
  if (name == "forward") return {Pass::forward};
  if (name == "backward") return {Pass::backward};
  return {Pass::forward, Pass::backward};
}

std::string backend_of(const Settings& settings) {
  const std::string& name = settings.text("backend");
  const bool there = device_count() > 0;
  if (name == "cuda" && !there) {
    settings.refuse("backend",
                    "is not possible: CUDA is not built or no GPU was found (annulus "
                    "doctor says which); allowed here: auto, cpu");
  }
  const bool cuda = name == "cuda" || (name == "auto" && there);
  if (!cuda && between_devices(settings.text("transport"))) {
    settings.refuse("transport",
                    "moves data between GPUs, and this runs on the CPU; allowed: "
                    "auto, local, mpi");
  }
  return cuda ? "cuda" : "cpu";
}

void place_session(const Settings& settings, SessionOptions& options) {
  options.backward_moves = backward_moves_of(settings);
  options.tile_q = settings.maybe_integer("tile_q").value_or(0);
  options.tile_k = settings.maybe_integer("tile_k").value_or(0);
  options.backend = backend_of(settings);
  if (options.backend != "cuda") return;
  const std::string& transport = settings.text("transport");
  if (between_devices(transport)) options.transport = transport;
  if (settings.has("ranks_per_host")) {
    options.ranks_per_host = static_cast<int>(settings.integer("ranks_per_host"));
  }
}

std::string transport_of(const Settings& settings, const World& started) {
  const std::string& name = settings.text("transport");
  if (name == "auto" || between_devices(name)) return started.launched() ? "mpi" : "local";
  if (name == "mpi" && !started.launched()) {
    settings.refuse("transport", "needs ranks that mpirun or srun started; allowed here: local");
  }
  if (name == "local" && started.size > 1) {
    settings.refuse("transport", fmt::format("is threads of one process, but {} processes were "
                                             "started; allowed here: mpi",
                                             started.size));
  }
  return name;
}

int world_of(const Settings& settings, const World& started) {
  const auto asked = settings.maybe_integer("world");
  if (started.launched()) {
    if (asked.value_or(started.size) != started.size) {
      settings.refuse("world", fmt::format("differs from the {} ranks that {} started",
                                           started.size, started.launcher));
    }
    return started.size;
  }
  const std::string& transport = settings.text("transport");
  if (asked.value_or(1) != 1 && transport != "local" && !between_devices(transport)) {
    settings.refuse("world", fmt::format("ranks were not started; use mpirun -np {} or --transport "
                                         "local",
                                         *asked));
  }
  return static_cast<int>(asked.value_or(1));
}

int planned_world_of(const Settings& settings, const World& started) {
  if (started.launched()) return world_of(settings, started);
  return static_cast<int>(settings.maybe_integer("world").value_or(1));
}

int threads_of(const Settings& settings, int ranks_here) {
  if (settings.has("threads")) return static_cast<int>(settings.integer("threads"));
  if (const char* text = std::getenv("OMP_NUM_THREADS"); text != nullptr) {
    const int threads = std::atoi(text);  // "4,2" of nested teams: the outer one
    if (threads >= 1) return std::min(threads, 4096);
  }
  const int cores = static_cast<int>(std::thread::hardware_concurrency());
  return std::max(1, cores / std::max(1, ranks_here));
}

PlanRequest plan_request_of(const Settings& settings, int world, Pass pass) {
  PlanOptions options{.outer = outer_of(settings)};
  options.backward_moves = backward_moves_of(settings);
  if (settings.has("tile_q")) options.tile_q = settings.integer("tile_q");
  if (settings.has("tile_k")) options.tile_k = settings.integer("tile_k");
  if (settings.has("ulysses_slices")) {
    options.ulysses_slices = static_cast<int>(settings.integer("ulysses_slices"));
  }
  return {.problem = problem_of(settings),
          .layout = layout_of(settings),
          .algorithm = algorithm_of(settings),
          .mesh = mesh_of(settings, world),
          .pass = pass,
          .options = options};
}

AttentionOptions attention_options_of(const Settings& settings) {
  return {.algorithm = algorithm_of(settings),
          .layout = layout_of(settings),
          .outer = outer_of(settings),
          .kernel = settings.text("kernel"),
          .tile_q = settings.maybe_integer("tile_q").value_or(0),
          .tile_k = settings.maybe_integer("tile_k").value_or(0),
          .deterministic = settings.flag("deterministic"),
          .blocking_transfers = false,
          .gather_at_once = settings.flag("gather_at_once"),
          .gather_push = settings.flag("gather_push"),
          .ulysses_slices = static_cast<int>(settings.maybe_integer("ulysses_slices").value_or(0)),
          .sm_limit = static_cast<int>(settings.integer("sm_limit")),
          .backward_moves = backward_moves_of(settings)};
}

}  // namespace annulus::launch
