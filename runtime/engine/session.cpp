#include "runtime/engine/session.h"

#include "attention/execute/launches.h"
#include "runtime/engine/request.h"

#include <annulus/error.h>
#include <annulus/machine.h>

#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <utility>

namespace annulus {
namespace engine {

Decision decide(const Problem& problem, const Layout& layout, Algorithm algorithm, const Mesh& mesh,
                bool backward) {
  const int world = mesh.world();
  switch (algorithm) {
    case Algorithm::ring:
    case Algorithm::gather:
      return {algorithm, {.ring = world, .ulysses = 1}, "asked for"};
    case Algorithm::ulysses:
      return {algorithm, {.ring = 1, .ulysses = world}, "asked for"};
    case Algorithm::hybrid:
      return {algorithm, mesh.shape(), "asked for"};
    case Algorithm::automatic:
      break;
  }
  std::vector<Pass> passes{Pass::forward};
  if (backward) passes.push_back(Pass::backward);
  const AlgorithmChoice choice = choose_algorithm(problem, layout, world, passes);
  return {choice.algorithm, choice.mesh, choice.reason};
}

void agree_on_errors(comm::Communicator& communicator, std::string_view what,
                     const std::exception_ptr& local) {
  std::string text;
  if (local) {
    try {
      std::rethrow_exception(local);
    } catch (const std::exception& error) {
      text = error.what();
    }
  }
  try {
    comm::require_success(communicator, what, text);
  } catch (const InvalidArgument&) {
    // The rank that found it keeps its own type and text.
    if (local) std::rethrow_exception(local);
    throw;
  }
}

std::int64_t arena_bytes(const Plan& plan, const RankPlan& rank, const attn::Kernel& kernel,
                         int threads) {
  return rank.arena_bytes + attn::workspace_bytes(plan, rank, kernel, threads);
}

namespace {

/// The largest arena that an attention within the options can ask for.
std::int64_t largest_arena(const Mesh& mesh, const SessionOptions& options) {
  const Problem problem = resolved(options.max_problem);
  const Decision decision =
      decide(problem, options.layout, options.algorithm, mesh, options.backward);
  std::int64_t bytes = 0;
  for (const Pass pass : {Pass::forward, Pass::backward}) {
    if (pass == Pass::backward && !options.backward) continue;
    for (const attn::Kernel* kernel : attn::kernels("cpu")) {
      if (kernel->quadratic_workspace && kernel->name != options.kernel) continue;
      if (!kernel->refuses(kernel_query(problem, pass)).empty()) continue;
      const Plan plan = make_plan(
          plan_request(problem, options.layout, decision, pass, *kernel, {.outer = options.outer}));
      bytes = std::max(bytes, arena_bytes(plan, plan.rank(mesh.rank()), *kernel, options.threads));
    }
  }
  return bytes;
}

}  // namespace
}  // namespace engine

Session::Session(Mesh& mesh, const SessionOptions& options) : impl_(std::make_unique<Impl>()) {
  impl_->mesh = &mesh;
  impl_->options = options;
  std::exception_ptr error;
  try {
    if (options.threads < 1) {
      throw InvalidArgument(fmt::format("session threads {}: must be >= 1", options.threads));
    }
    const std::int64_t bytes = engine::largest_arena(mesh, options);
    impl_->arena = options.arena;
    if (options.arena.empty()) {
      impl_->own = Buffer(bytes);
      impl_->arena = {impl_->own.data(), static_cast<std::size_t>(bytes)};
    }
    if (static_cast<std::int64_t>(impl_->arena.size()) < bytes) {
      throw InvalidArgument(fmt::format("session arena has {} bytes, the largest problem needs {}",
                                        impl_->arena.size(), bytes));
    }
  } catch (...) {
    error = std::current_exception();
  }
  engine::agree_on_errors(impl_->communicator(), "session", error);
}

Session::Session(Session&&) noexcept = default;
Session::~Session() = default;

Mesh& Session::mesh() const { return *impl_->mesh; }
std::int64_t Session::arena_bytes() const { return static_cast<std::int64_t>(impl_->arena.size()); }

}  // namespace annulus
