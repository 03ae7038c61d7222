#include "runtime/engine/bind.h"

#include "runtime/engine/device_pass.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <utility>

namespace annulus::engine {
namespace {

/// The session's arena is large enough either way.
GatherLaunch gather(const Session::Impl& session, const AttentionOptions& options) {
  if (!options.gather_at_once || !session.device || !session.device->copies_beside_kernels()) {
    return GatherLaunch::slices;
  }
  return options.deterministic ? GatherLaunch::in_position : GatherLaunch::on_arrival;
}

/// Where transfers take time from kernels, or wait for them, slices gain nothing.
int ulysses_slices(const Session::Impl& session, const AttentionOptions& options) {
  if (options.ulysses_slices != 0) return options.ulysses_slices;
  return session.device && session.device->copies_beside_kernels() ? 0 : 1;
}

std::unique_ptr<BoundPass> bind_pass(Session::Impl& session, const Binding& of,
                                     const AttentionOptions& options, Pass pass) {
  Plan plan = make_plan(
      plan_request(of.problem, options.layout, of.decision, pass, *of.choice.kernel,
                   {options.outer, options.tile_q, options.tile_k, gather(session, options),
                    ulysses_slices(session, options), options.backward_moves, options.deterministic,
                    session.device ? session.device->in_place() : InPlace{}}));
  RankPlan rank = plan.rank(session.mesh->rank());
  if (session.device) {
    return make_device_pass(session, std::move(plan), std::move(rank), *of.choice.kernel,
                            options.deterministic, options.sm_limit);
  }
  return make_host_pass(session, std::move(plan), std::move(rank), *of.choice.kernel);
}

}  // namespace

std::uint32_t Binding::hash() const {
  const std::uint32_t f = forward->plan().hash();
  return backward ? f ^ (backward->plan().hash() << 1U) : f;
}

Binding bind(Session::Impl& session, const Problem& problem, const AttentionOptions& options) {
  if (options.sm_limit < 0) {
    throw InvalidArgument(fmt::format(
        "attention sm_limit {}: must be >= 1, or 0 for all multiprocessors", options.sm_limit));
  }
  const bool both = session.options.backward;
  Binding bound;
  bound.problem = resolved(problem);
  bound.decision = decide(bound.problem, options.layout, options.algorithm, *session.mesh, both);
  bound.choice = choose_kernel(
      options.kernel,
      attn::kernel_query(bound.problem, both ? Pass::backward : Pass::forward, session.backend));
  bound.forward = bind_pass(session, bound, options, Pass::forward);
  if (both) bound.backward = bind_pass(session, bound, options, Pass::backward);
  return bound;
}

void prepare_binds(Session::Impl& session) {
  const SessionOptions& o = session.options;
  AttentionOptions own;
  own.algorithm = o.algorithm;
  own.layout = o.layout;
  own.outer = o.outer;
  own.kernel = o.kernel;
  own.tile_q = o.tile_q;
  own.tile_k = o.tile_k;
  own.backward_moves = o.backward_moves;
  try {
    const Binding bound = bind(session, o.max_problem, own);
    session.device->reserve();
  } catch (const Unsupported& error) {  // attentions with other options may be bound
    session.log().debug("session: {}", error.what());
  }
}

}  // namespace annulus::engine
