#pragma once

#include <annulus/cost.h>
#include <annulus/export.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

// GenZ's roofline, operator by operator: docs/cost.md says what it counts and what it leaves out
// (causality, softmax, norms, sequence-parallel transfers). All times are analytic.

/// One width for weights, activations and cache, as in GenZ.
enum class Precision : std::uint8_t { f32, bf16, int8, fp8, fp6, int4, fp4, int2 };

ANNULUS_API std::string_view name_of(Precision precision);
/// Throws InvalidArgument that names what is allowed.
ANNULUS_API Precision parse_precision(std::string_view text);
ANNULUS_API int bits_of(Precision precision);
/// Time of one MAC over that of a bf16 MAC: 2 for f32, 0.5 for 8 bits and 6, 0.25 for 4.
ANNULUS_API double compute_weight(Precision precision);

/// Multi-head latent attention (DeepSeek-V2, V3). kv_rank 0: there is none. The widths of a head
/// are ModelShape's: head_dim holds `rope` dimensions, head_dim_v is the values'.
struct LatentShape {
  std::int64_t q_rank = 0;  ///< 0: queries are projected at once
  std::int64_t kv_rank = 0;
  std::int64_t rope = 0;
};

/// Which dimensions are taken.
enum class DimsRule : std::uint8_t {
  model,  ///< expert_ffn and shared experts, latent projections
  genz    ///< as GenZ in prefill and decode: experts ModelShape::ffn wide, none shared, no latent
};
ANNULUS_API std::string_view name_of(DimsRule rule);

/// The experts of a layer. `experts` 1: there are none, and the other fields mean nothing.
struct ExpertShape {
  std::int64_t experts = 1;
  std::int64_t per_token = 1;
  /// Width of one expert; 0: ModelShape::ffn. GenZ looks at it, and at shared experts, only in
  /// chunked steps: prefill and decode take ModelShape::ffn. Kept under DimsRule::genz.
  std::int64_t ffn = 0;
  std::int64_t shared = 0;      ///< experts that every token passes
  std::int64_t shared_ffn = 0;  ///< width of one of them
};

/// A decoder. ffn_inputs: 2 where a gate stands beside the up projection.
struct ModelShape {
  std::int64_t hidden = 0;
  std::int64_t heads = 1;
  std::int64_t heads_kv = 1;
  std::int64_t head_dim = 64;
  std::int64_t ffn = 0;
  std::int64_t ffn_inputs = 2;
  std::int64_t vocab = 0;
  std::int64_t layers = 1;
  ExpertShape moe = {};
  /// Their counts sum to `layers`. Empty: all of one kind, moe where there are experts.
  std::vector<LayerGroup> layer_kinds = {};
  std::int64_t head_dim_v = 0;  ///< width of values; 0: head_dim, as GenZ has it
  LatentShape latent = {};

  std::int64_t value_dim() const { return head_dim_v == 0 ? head_dim : head_dim_v; }
};

/// One device and its link. GiB are 2^30 bytes, as GenZ takes them; tflops are 1e12, dense bf16.
struct SystemRates {
  std::string name;
  double tflops = 0;
  double memory_gib = 0;
  double memory_gib_s = 0;
  double link_gib_s = 0;
  double link_latency_us = 1;
  double onchip_gib_s = 18000;
  double host_gib_s = 128;  ///< what does not fit comes from here, with `offload`
  double efficiency = 1;    ///< of compute and memory, not of links
};

/// One stage of one model on tp x ep x sp x pp ranks. prefill: batch, seq; decode: batch, prompt,
/// generated, beam; chunked: chunks and decodes.
struct LatencyRequest {
  Stage stage = Stage::prefill;
  ModelShape model;
  SystemRates system;
  DimsRule rule = DimsRule::genz;
  Precision precision = Precision::bf16;
  std::int64_t batch = 1;
  std::int64_t seq = 0;
  std::int64_t prompt = 0;
  std::int64_t generated = 0;
  std::int64_t beam = 1;
  std::vector<PrefillChunk> chunks;
  std::vector<DecodeEntry> decodes;
  std::int64_t tp = 1;
  std::int64_t ep = 1;  ///< of experts; in GenZ attention and embeddings share tp * ep ranks
  std::int64_t sp = 1;
  std::int64_t pp = 1;
  /// original: S // sp keys for each query. corrected: all S.
  CostMode mode = CostMode::original;
  CostPolicy policy = CostPolicy::uniform;
  /// Of Logit and Attend. 1: upstream GenZ. 3: both modes of the fork.
  double softmax_factor = 1;
  bool offload = false;  ///< slow memory down where weights and cache do not fit
};

enum class Collective : std::uint8_t { all_reduce, all_gather, all_to_all, message_pass };
/// Closed forms over one ring of equal links; 0 for no bytes, and for one rank but in message_pass.
ANNULUS_API double collective_seconds(Collective collective, std::int64_t ranks, double bytes,
                                      const SystemRates& system);

enum class OperatorKind : std::uint8_t { gemm, logit, attend, sync };
enum class Bound : std::uint8_t { none, compute, memory, communication };
ANNULUS_API std::string_view name_of(OperatorKind kind);
ANNULUS_API std::string_view name_of(Bound bound);

/// One operator of one rank; it runs `repeat` times. Counts and times are of one run.
struct OperatorRow {
  std::string name;
  OperatorKind kind = OperatorKind::gemm;
  std::int64_t repeat = 1;
  std::int64_t macs = 0;             ///< softmax_factor included
  std::int64_t input_elements = 0;   ///< activations; the scores of attend
  std::int64_t weight_elements = 0;  ///< weights; keys or values
  std::int64_t output_elements = 0;
  bool input_on_chip = false;
  bool output_on_chip = false;
  Collective collective = Collective::all_reduce;  ///< sync only, with the two below
  std::int64_t ranks = 1;
  std::int64_t sent_elements = 0;
  double compute_s = 0;
  double memory_s = 0;
  double comm_s = 0;

  double latency_s() const;  ///< the longest of the three
  Bound bound() const;
  bool is_attention() const { return kind == OperatorKind::logit || kind == OperatorKind::attend; }
};

/// One rank, all pipeline stages one after another, one micro-batch.
struct LatencyReport {
  LatencyRequest request;
  std::vector<OperatorRow> rows;
  std::int64_t micro_batch = 1;  ///< max(1, batch / pp)
  std::int64_t macs = 0;
  std::int64_t attention_macs = 0;
  double latency_s = 0;  ///< nothing overlaps: the sum over rows
  double attention_s = 0;
  double linear_s = 0;
  double comm_s = 0;
  double compute_only_s = 0;  ///< sums of the rows' parts
  double memory_only_s = 0;
  double weight_bytes = 0;  ///< of all stages, one tp rank
  double cache_bytes = 0;
  bool fits = true;  ///< (weights + cache) / pp within memory; activations are not counted
  bool offloaded = false;
  double memory_gib_s = 0;      ///< what was reckoned with: lower when offloaded
  double throughput_per_s = 0;  ///< prefill: requests; decode: tokens, beams apart; chunked: tokens
};

/// Throws InvalidArgument, with the values, for what cannot be and for counts past 2^63. A model
/// that does not fit is priced all the same: `fits` says so.
ANNULUS_API LatencyReport estimate_latency(const LatencyRequest& request);

/// One stage by three accountings: upstream GenZ (//sp, factor 1), and the fork's two modes.
struct ModeComparison {
  LatencyReport upstream;
  LatencyReport original;
  LatencyReport corrected;
  std::optional<LatencyReport> by_policy;  ///< the fork's factor; where a policy is not uniform
  double attention_flops_ratio = 1;        ///< corrected over original
  double flops_ratio = 1;
  double time_ratio = 1;
  bool others_equal = true;  ///< every operator but Logit and Attend: counts, bytes and times
  std::vector<std::string> reasons;  ///< why they agree or differ, from the rows
};
/// `request.mode` is ignored; `request.softmax_factor` is that of the fork's modes.
ANNULUS_API ModeComparison compare_modes(const LatencyRequest& request);

/// Tables and reasons of one deployment: time to first token, then per token, or a chunked step.
ANNULUS_API std::string to_text(const std::vector<ModeComparison>& stages);
/// Schema annulus.latency/1.
ANNULUS_API std::string to_json(const std::vector<ModeComparison>& stages);

}  // namespace annulus
