#pragma once

#include "runtime/engine/bound_pass.h"
#include "runtime/engine/request.h"
#include "runtime/engine/session.h"

#include <annulus/attention.h>

#include <cstdint>
#include <memory>

namespace annulus::engine {

/// What an Attention is on one rank.
struct Binding {
  Problem problem;
  Decision decision;
  KernelChoice choice;
  std::unique_ptr<BoundPass> forward;
  std::unique_ptr<BoundPass> backward;  ///< null where the session was made without

  /// Of both plans.
  std::uint32_t hash() const;
};

/// Waits for no rank, nor on a GPU for what runs there, and takes memory of the session alone.
/// Throws InvalidArgument and Unsupported for what cannot be bound.
Binding bind(Session::Impl& session, const Problem& problem, const AttentionOptions& options);

/// Binds what the session's own options say, once, and drops it: so what later binds need is there,
/// device code included. Takes as long as an Attention of max_problem.
void prepare_binds(Session::Impl& session);

}  // namespace annulus::engine
