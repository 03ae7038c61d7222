#pragma once

#include <annulus/export.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

enum class Stage : std::uint8_t { prefill, decode, chunked };
/// Which accounting drives predicted time.
enum class CostMode : std::uint8_t { original, corrected };

ANNULUS_API std::string_view name_of(Stage stage);
ANNULUS_API std::string_view name_of(CostMode mode);

/// A run of identical decode entries of a chunked step: `count` requests of `kv` keys, or, where
/// the prompt is shared by beams, GenZ's 4-tuple (prompt_batch, decode_batch, prompt, generated).
struct DecodeEntry {
  std::int64_t count = 1;
  std::int64_t kv = 0;
  bool beams = false;
  std::int64_t prompt_batch = 0;
  std::int64_t decode_batch = 0;
  std::int64_t prompt = 0;
  std::int64_t generated = 0;
};

/// One prefill chunk: `past` keys are in the cache, `fresh` tokens are new.
struct PrefillChunk {
  std::int64_t past = 0;
  std::int64_t fresh = 0;
};

/// What is priced. The attention of one model on a deployment of tp x sp (x ep) ranks.
struct CostRequest {
  Stage stage = Stage::prefill;
  std::int64_t batch = 1;  ///< before beams
  std::int64_t heads = 1;
  std::int64_t heads_kv = 1;
  std::int64_t head_dim = 64;    ///< width of q and k
  std::int64_t head_dim_v = 64;  ///< width of v
  std::int64_t layers = 1;
  std::int64_t seq = 0;        ///< prefill
  std::int64_t prompt = 0;     ///< decode
  std::int64_t generated = 0;  ///< decode
  std::int64_t beam = 1;       ///< decode
  std::vector<PrefillChunk> chunks;
  std::vector<DecodeEntry> decodes;
  std::int64_t sp = 1;
  std::int64_t tp = 1;
  std::int64_t ep = 1;
  double softmax_factor = 3.0;
  CostMode mode = CostMode::corrected;
  std::string mode_source = "default";
  /// Unmasked pairs by sp rank, of one head of one batch element; empty: causal, by even shares.
  std::vector<std::int64_t> masked_pairs_by_rank;
  /// Pairs without a mask, of one head of one batch element; -1: seq * seq.
  std::int64_t full_pairs = -1;
};

/// MACs of one tensor-parallel rank, as GenZ counts.
struct MacAccounting {
  std::int64_t logit_macs_rank_layer = 0;
  std::int64_t attend_macs_rank_layer = 0;
  std::int64_t attention_macs_rank_model = 0;
};

/// FLOPs (2 a MAC) with the true mask; group: all tp * sp ranks together.
struct ExactAccounting {
  std::int64_t full_flops_group_layer = 0;
  std::int64_t masked_flops_group_layer = 0;
  std::vector<std::int64_t> masked_flops_rank_layer;  ///< by sp rank, of one tp rank
  std::int64_t backward_full_flops_group_layer = 0;
  std::int64_t backward_masked_flops_group_layer = 0;
  std::vector<std::int64_t> backward_masked_flops_rank_layer;
};

/// FLOPs by rank that a plan holds, or that kernels counted. Empty: not available.
struct CountedFlops {
  std::vector<std::int64_t> flops_rank_layer;
  std::vector<std::int64_t> backward_flops_rank_layer;
};

/// The accountings beside each other. They contradict each other: docs/cost.md says why.
struct CostReport {
  CostRequest request;
  MacAccounting original;      ///< //sp, as upstream GenZ
  MacAccounting original_x3;   ///< times softmax_factor
  MacAccounting corrected;     ///< full length instead of //sp
  MacAccounting corrected_x3;  ///< times softmax_factor
  ExactAccounting exact;
  CountedFlops planned;
  CountedFlops executed;
  std::string hardware_unavailable = "no hardware counters on this back end";
};

/// Throws InvalidArgument for sizes that cannot be.
ANNULUS_API CostReport price(const CostRequest& request);

/// The table that `bench` and `cost` print: basis and unit in the header, a line for each gap.
ANNULUS_API std::string to_text(const CostReport& report);
/// Schema annulus.cost/1.
ANNULUS_API std::string to_json(const CostReport& report);

}  // namespace annulus
