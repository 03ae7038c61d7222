#pragma once

#include "runtime/engine/session.h"

#include <annulus/attention.h>
#include <annulus/mesh.h>

#include <cstdint>
#include <string_view>

namespace annulus::engine {

/// Bytes of arena that one pass takes: slots and the largest workspace.
std::int64_t arena_bytes(const Plan& plan, const RankPlan& rank, const attn::Kernel& kernel,
                         int threads);

/// Some ranks of the session's mesh are a ulysses group.
bool exchanges_in_groups(const Mesh& mesh, const SessionOptions& options);

/// The largest arena that an attention of options.max_problem can ask for on this rank, whatever
/// its AttentionOptions say beside what the session was told: deterministic or not, at once or not.
/// `in_place`: what it need not stage.
std::int64_t largest_arena(const Mesh& mesh, const SessionOptions& options,
                           std::string_view backend, InPlace in_place = {});

}  // namespace annulus::engine
