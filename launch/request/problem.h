#pragma once

#include "launch/options/settings.h"
#include "launch/world.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <vector>

namespace annulus::launch {

// Settings to the library's structs: pure functions that find what cannot go together and throw
// UsageError naming the option.

/// Refuse what belongs to later issues, by name ("not built yet"): for every subcommand, for those
/// that run something, and for those that price it.
void refuse_unbuilt(const Settings& settings);
void refuse_unbuilt_run(const Settings& settings);
void refuse_unbuilt_prediction(const Settings& settings);

Problem problem_of(const Settings& settings);

/// `documents`: lengths separated by commas, or @FILE with one a line and # comments.
std::vector<std::int64_t> document_lengths(const Settings& settings);

Layout layout_of(const Settings& settings);
/// `automatic` stays automatic.
Algorithm algorithm_of(const Settings& settings);
Algorithm outer_of(const Settings& settings);
/// The degrees of `world` ranks.
MeshShape mesh_of(const Settings& settings, int world);
/// The passes that `pass` names, in the order in which they run.
std::vector<Pass> passes_of(const Settings& settings);

/// Ranks that `bench` runs on: those that were started, or threads with transport = local.
int world_of(const Settings& settings, const World& started);
/// Ranks that `plan` and `mask` describe: any number outside mpirun.
int planned_world_of(const Settings& settings, const World& started);
/// "local" or "mpi": what `transport = auto` means here.
std::string transport_of(const Settings& settings, const World& started);

PlanRequest plan_request_of(const Settings& settings, int world, Pass pass);
AttentionOptions attention_options_of(const Settings& settings);
int threads_of(const Settings& settings, int ranks_here);

/// The shape and the deployment: what every stage and `bench` share.
CostRequest cost_keys_of(const Settings& settings);
CostRequest cost_request_of(const Settings& settings);

/// {"batch": 1, "seq": ...}: the `problem` of every report, as JSON text.
std::string problem_json(const Problem& problem);

}  // namespace annulus::launch
