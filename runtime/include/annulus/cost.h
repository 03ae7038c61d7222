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

/// Whether a mode holds for all layers. legacy is the rule of the fork's note: dense layers
/// corrected, MoE layers original, whatever `mode` says.
enum class CostPolicy : std::uint8_t { uniform, legacy };

enum class LayerKind : std::uint8_t { dense, moe };
ANNULUS_API std::string_view name_of(LayerKind kind);

/// Neighbouring layers of one kind.
struct LayerGroup {
  LayerKind kind = LayerKind::dense;
  std::int64_t count = 1;
};
/// "dense:3,moe:58", in the model's order. Throws InvalidArgument for what is no such list, and
/// Unsupported, naming the layer, for a kind that nobody prices ("mamba").
ANNULUS_API std::vector<LayerGroup> parse_layer_kinds(std::string_view text);

ANNULUS_API std::string_view name_of(Stage stage);
ANNULUS_API std::string_view name_of(CostMode mode);
ANNULUS_API std::string_view name_of(CostPolicy policy);
/// The mode that a layer is priced by.
ANNULUS_API CostMode mode_of(CostMode mode, CostPolicy policy, LayerKind kind);
/// The inverse of name_of. Throws InvalidArgument that names what is allowed.
ANNULUS_API Stage parse_stage(std::string_view text);
ANNULUS_API CostMode parse_cost_mode(std::string_view text);

/// A run of identical decode entries of a chunked step: `count` requests of `kv` keys, or, where
/// the prompt is shared by beams, GenZ's 4-tuple (prompt_batch, decode_batch, prompt, generated).
struct DecodeEntry {
  std::int64_t count = 1;
  std::int64_t kv = 0;
  bool beams = false;  ///< the 4-tuple below, instead of `kv`
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

/// "0:300,2048:212" is past:new for each chunk. Lengths take k and M (powers of two); an empty text
/// is no chunk. Throws InvalidArgument that names what is allowed.
ANNULUS_API std::vector<PrefillChunk> parse_chunks(std::string_view text);
/// "80,4x2048,1/4/1000/37": one request of 80 keys, 4 of 2048, and the 4-tuple
/// prompt_batch/decode_batch/prompt/generated. Throws as parse_chunks.
ANNULUS_API std::vector<DecodeEntry> parse_decode_entries(std::string_view text);

/// What is priced. The attention of one model on a deployment of tp x sp (x ep) ranks.
struct CostRequest {
  Stage stage = Stage::prefill;
  std::int64_t batch = 1;  ///< before beams; a chunked step is repeated `batch` times
  std::int64_t heads = 1;
  std::int64_t heads_kv = 1;
  std::int64_t head_dim = 64;    ///< width of q and k
  std::int64_t head_dim_v = 64;  ///< width of v
  std::int64_t layers = 1;
  std::int64_t seq = 0;        ///< prefill
  std::int64_t seq_kv = -1;    ///< prefill; -1: seq
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
  CostPolicy policy = CostPolicy::uniform;
  /// Their counts sum to `layers`. Empty: all dense. Only a policy asks.
  std::vector<LayerGroup> layer_kinds = {};
  /// Unmasked pairs by sp rank, of one head of one batch element (decode: of one beam); empty: the
  /// causal pairs of the stage (bottom right), shared out evenly.
  std::vector<std::int64_t> masked_pairs_by_rank;
  /// Pairs without a mask, of one head of one batch element; -1: those of the stage.
  std::int64_t full_pairs = -1;
  double peak_tflops = 0.0;  ///< dense matrix rate of one rank; 0: no time is predicted
  std::string peak_source;   ///< where peak_tflops comes from, such as "h100.cfg"
};

/// MACs of one rank, as GenZ counts: ceil(heads / (tp * ep)) heads, all sequences. `original` is
/// also of one sp rank; `corrected` is not divided by sp.
struct MacAccounting {
  std::int64_t logit_macs_rank_layer = 0;
  std::int64_t attend_macs_rank_layer = 0;
  std::int64_t attention_macs_rank_model = 0;
};

/// FLOPs (2 a MAC) with the true mask; group: all tp * sp ranks together, so all heads. A tp rank
/// has ceil(heads / tp) heads, so rank entries times tp sum to the group only if tp divides heads.
struct ExactAccounting {
  std::int64_t full_flops_group_layer = 0;
  std::int64_t masked_flops_group_layer = 0;
  std::vector<std::int64_t> masked_flops_rank_layer;  ///< by sp rank, of one tp rank
  std::int64_t backward_full_flops_group_layer = 0;
  std::int64_t backward_masked_flops_group_layer = 0;
  std::vector<std::int64_t> backward_masked_flops_rank_layer;
};

/// FLOPs by rank that a plan holds, or that kernels counted: sp entries of one tp rank, or tp * sp.
/// Empty: not available.
struct CountedFlops {
  std::vector<std::int64_t> flops_rank_layer;
  std::vector<std::int64_t> backward_flops_rank_layer;
};

/// Read from performance counters (annulus/counters.h), one call of each pass, by rank, in the
/// order of CountedFlops. Empty: not available.
struct HardwareCounts {
  std::vector<std::int64_t> flops_rank_layer;  ///< of tensor cores; 0: the kernel does not use them
  std::vector<std::int64_t> backward_flops_rank_layer;
  std::vector<std::int64_t> hbm_bytes_rank_layer;  ///< read and written
  std::vector<std::int64_t> backward_hbm_bytes_rank_layer;
  /// HBM bytes of the naive kernel over this kernel's, same problem, forward; 0: not measured.
  double memory_efficiency = 0.0;
  std::string source;  ///< the counters' names

  bool available() const {
    return !flops_rank_layer.empty() || !backward_flops_rank_layer.empty() ||
           !hbm_bytes_rank_layer.empty() || !backward_hbm_bytes_rank_layer.empty();
  }
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
  HardwareCounts hardware;
  /// Why `hardware` is empty; empty: it is not, or nobody asked.
  std::string hardware_unavailable = "no hardware counters on this back end";
  /// MACs of one rank, all layers, each by the accounting that mode and policy name.
  std::int64_t driving_macs_rank_model = 0;
  /// Analytic: 2 * driving_macs_rank_model over peak_tflops; one rank, forward, no memory traffic
  /// or communication. 0 without a peak.
  double predicted_attention_s = 0.0;
};

/// Fills everything but planned, executed and hardware. Throws InvalidArgument, with the values,
/// for sizes that cannot be, and rather than let a count pass 2^63.
ANNULUS_API CostReport price(const CostRequest& request);

/// One thing that the report can check of itself.
struct CostCheck {
  enum class Outcome : std::uint8_t { passed, failed, not_comparable };
  std::string claim;  ///< "hardware forward = executed within 1 %"
  Outcome outcome = Outcome::passed;
  std::string detail;  ///< which differs and by how much; empty where it passed
};
ANNULUS_API std::string_view name_of(CostCheck::Outcome outcome);

/// Exact <= executed <= tile bound (the tiles of the plan), and hardware = executed within 1 %,
/// rank by rank, for what the report holds. Pure.
ANNULUS_API std::vector<CostCheck> self_checks(const CostReport& report);

/// The table that `bench` and `cost` print: basis and unit in the header, a line for each gap.
ANNULUS_API std::string to_text(const CostReport& report);
/// Schema annulus.cost/1.
ANNULUS_API std::string to_json(const CostReport& report);

}  // namespace annulus
