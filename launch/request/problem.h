#pragma once

#include "launch/options/settings.h"
#include "launch/world.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <string_view>
#include <vector>

namespace annulus::launch {

// Settings to the library's structs: pure functions that find what cannot go together and throw
// UsageError naming the option.

/// Refuse what belongs to later issues, by name ("not built yet"): for every subcommand, for those
/// that run something, and for those that price it.
void refuse_unbuilt(const Settings& settings);
void refuse_unbuilt_run(const Settings& settings);
void refuse_unbuilt_prediction(const Settings& settings);
/// A trace of what has none, and one that was typed where no call is traced; files and environment
/// may hold the key for those that use it.
void refuse_trace(const Settings& settings, std::string_view why);
void refuse_typed_trace(const Settings& settings);

/// What `strict` forbids: another kernel than the one asked for, or, with auto, than the best one.
void refuse_fallback(const Settings& settings, const Problem& problem);

/// `shrink` included.
Problem problem_of(const Settings& settings);

/// The same problem at 1/by of its length: seq, seq_kv, documents, window and prefix, none of which
/// vanishes. Throws InvalidArgument for a mask given row by row.
Problem shrunk(const Problem& problem, std::int64_t by);

/// `documents`: lengths separated by commas, or @FILE with one a line and # comments.
std::vector<std::int64_t> document_lengths(const Settings& settings);

Layout layout_of(const Settings& settings);
/// `automatic` stays automatic.
Algorithm algorithm_of(const Settings& settings);
Algorithm outer_of(const Settings& settings);
BackwardMoves backward_moves_of(const Settings& settings);
/// The degrees of `world` ranks.
MeshShape mesh_of(const Settings& settings, int world);
/// The passes that `pass` names, in the order in which they run.
std::vector<Pass> passes_of(const Settings& settings);

/// Ranks that `bench` runs on: those that were started, or threads with transport = local.
int world_of(const Settings& settings, const World& started);
/// Ranks that `plan` and `mask` describe: any number outside mpirun.
int planned_world_of(const Settings& settings, const World& started);
/// "local" or "mpi": what ranks are. `transport = auto`, and those between GPUs: threads unless
/// ranks were started.
std::string transport_of(const Settings& settings, const World& started);

/// "cpu" or "cuda": what `backend = auto` means here.
std::string backend_of(const Settings& settings);
/// What the settings say of a session but its problem and algorithm: where it computes.
void place_session(const Settings& settings, SessionOptions& options);

PlanRequest plan_request_of(const Settings& settings, int world, Pass pass);
AttentionOptions attention_options_of(const Settings& settings);
int threads_of(const Settings& settings, int ranks_here);

/// The shape and the deployment: what every stage and `bench` share.
CostRequest cost_keys_of(const Settings& settings);
CostRequest cost_request_of(const Settings& settings);
/// Layers by kind, as `layer_kinds` says; empty: all alike. Throws Unsupported, naming the layers,
/// for a kind that nobody prices.
std::vector<LayerGroup> layer_kinds_of(const Settings& settings);
/// What `experts` and its neighbours say of a layer.
ExpertShape experts_of(const Settings& settings);
/// `policy`; with legacy no mode may be given.
CostPolicy policy_of(const Settings& settings);
/// Of a chunked step: `past` and `new`, then `chunks`; and `decode_kv`.
std::vector<PrefillChunk> chunks_of(const Settings& settings);
std::vector<DecodeEntry> decodes_of(const Settings& settings);

/// {"batch": 1, "seq": ...}: the `problem` of every report, as JSON text.
std::string problem_json(const Problem& problem);

}  // namespace annulus::launch
