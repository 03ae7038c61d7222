#include "launch/options/keys.h"

#include <algorithm>
#include <cctype>

namespace annulus::launch {
namespace {

constexpr std::int64_t kMaxLength = std::int64_t{1} << 32;
constexpr std::int64_t kMaxCount = std::int64_t{1} << 20;
constexpr std::int64_t kMaxSeed = std::int64_t{1} << 62;
constexpr auto kInteger = ValueType::integer;
constexpr auto kReal = ValueType::real;
constexpr auto kBoolean = ValueType::boolean;
constexpr auto kChoice = ValueType::choice;
constexpr auto kPath = ValueType::path;
constexpr auto kText = ValueType::text;

// clang-format off: a table reads by column
constexpr Key kKeys[] = {
    {"problem", "batch", kInteger, "1", "", "", 1, kMaxCount, "sequences"},
    {"problem", "seq", kInteger, "", "required", "", 1, kMaxLength, "query tokens"},
    {"problem", "seq_kv", kInteger, "", "= seq", "", 1, kMaxLength, "key tokens"},
    {"problem", "heads", kInteger, "1", "", "", 1, kMaxCount, "query heads"},
    {"problem", "heads_kv", kInteger, "", "= heads", "", 1, kMaxCount, "key/value heads"},
    {"problem", "head_dim", kInteger, "64", "", "", 1, 65536, "width of q and k"},
    {"problem", "head_dim_v", kInteger, "", "= head_dim", "", 1, 65536, "width of v and out"},
    {"problem", "dtype", kChoice, "f32", "", "f32|f16|bf16", 0, 0, "of inputs and outputs"},
    {"problem", "mask", ValueType::choices, "causal", "",
     "full|causal|window|documents|prefix|segments|custom", 0, 0,
     "joined by + when all must allow"},
    {"problem", "causal_align", kChoice, "bottom_right", "", "bottom_right|top_left", 0, 0,
     "where the diagonal sits when seq_kv is not seq"},
    {"problem", "window_left", kInteger, "", "none", "", -1, kMaxLength,
     "keys before the query; -1 is unbounded"},
    {"problem", "window_right", kInteger, "0", "", "", -1, kMaxLength,
     "keys after the query; -1 is unbounded"},
    {"problem", "documents", kText, "", "none", "", 0, 0,
     "lengths, comma-separated, or @FILE with one a line"},
    {"problem", "document_mask", kChoice, "causal", "", "causal|full", 0, 0, "inside a document"},
    {"problem", "prefix_length", kInteger, "", "none", "", 0, kMaxLength,
     "keys that every query sees"},
    {"problem", "segments", kText, "", "none", "", 0, 0,
     "segment id of each query, comma-separated, or @FILE with one a line; -1 is padding"},
    {"problem", "segments_kv", kText, "", "= segments", "", 0, 0, "segment id of each key"},
    {"problem", "mask_file", kPath, "", "none", "", 0, 0,
     "of mask = custom: .npy, bool or uint8 [seq, seq_kv]"},
    {"problem", "softcap", kReal, "off", "", "off", 0, 0,
     "scores become softcap * tanh(score / softcap)"},
    {"problem", "softmax_scale", kReal, "", "1/sqrt(head_dim)", "", 0, 0,
     "scores are softmax_scale * q k"},
    {"problem", "layers", kInteger, "1", "", "", 1, kMaxCount, "cost only"},
    {"problem", "hidden", kInteger, "", "none", "", 1, kMaxLength, "latency only: model width"},
    {"problem", "ffn", kInteger, "", "none", "", 1, kMaxLength, "latency only: width of the FFN"},
    {"problem", "vocab", kInteger, "", "none", "", 1, kMaxLength, "latency only: tokens known"},
    {"problem", "q_lora_rank", kInteger, "", "none", "", 1, kMaxLength,
     "compare_modes, legacy_model: latent width of queries"},
    {"problem", "kv_lora_rank", kInteger, "", "none", "", 1, kMaxLength,
     "compare_modes, legacy_model: latent width of keys and values"},
    {"problem", "qk_rope_head_dim", kInteger, "", "none", "", 1, 65536,
     "compare_modes, legacy_model: part of head_dim that all heads share"},
    {"problem", "experts", kInteger, "", "none", "", 1, kMaxCount, "of a layer; 1 is a dense FFN"},
    {"problem", "top_k", kInteger, "", "none; route: the router's", "", 1, kMaxCount,
     "experts of a token"},
    {"problem", "expert_ffn", kInteger, "", "none", "", 1, kMaxLength, "width of one expert"},
    {"problem", "shared_experts", kInteger, "", "none", "", 0, kMaxCount,
     "experts that every token passes"},
    {"problem", "shared_ffn", kInteger, "", "none", "", 1, kMaxLength, "width of a shared one"},
    {"problem", "activation", kChoice, "swiglu", "", "swiglu|gelu", 0, 0, "of the experts"},
    {"problem", "layer_kinds", kText, "", "all alike", "", 0, 0,
     "KIND:COUNT,... in the model's order, such as dense:3,moe:58"},
    {"problem", "model", kPath, "", "none", "", 0, 0,
     "Hugging Face config.json; fills shape keys not given"},

    {"parallel", "world", kInteger, "", "the ranks started", "", 1, 65536, "ranks"},
    {"parallel", "algorithm", kChoice, "auto", "", "auto|ring|gather|ulysses|hybrid", 0, 0,
     "how keys and queries meet"},
    {"parallel", "layout", kChoice, "zigzag", "", "contiguous|zigzag|striped|balanced", 0, 0,
     "who owns which tokens"},
    {"parallel", "ulysses_degree", kInteger, "", "by algorithm", "", 1, 65536,
     "ranks that share heads; hybrid needs it"},
    {"parallel", "outer", kChoice, "ring", "", "ring|gather", 0, 0,
     "hybrid: between ulysses groups"},
    {"parallel", "transport", kChoice, "auto", "", "auto|local|mpi|nccl|peer|composite", 0, 0,
     "local: ranks are threads"},
    {"parallel", "shared_memory", kBoolean, "true", "", "", 0, 0,
     "mpi ranks of one host map each other's memory; false: messages only"},
    {"parallel", "gather_at_once", kBoolean, "true", "", "", 0, 0,
     "gather between GPUs: one launch that takes keys as they arrive; false: a launch a slice"},
    {"parallel", "gather_push", kBoolean, "true", "", "", 0, 0,
     "the same launch: owners push keys out of the caller's tensors; false: packed and pulled"},
    {"parallel", "ulysses_slices", kInteger, "", "chosen from sizes", "", 1, 1024,
     "ulysses: launches of a pass, each of a slice of a rank's heads"},
    {"parallel", "backward_moves", kChoice, "auto", "", "auto|keys|queries", 0, 0,
     "ring: what travels in backward; auto: fewer bytes"},
    {"parallel", "sm_limit", kInteger, "0", "", "", 0, kMaxCount,
     "multiprocessors a launch of hopper takes at most, to leave some to communication; 0: all"},
    {"parallel", "ranks_per_host", kInteger, "", "all", "", 1, 65536, "ranks of one host"},
    {"parallel", "expert_degree", kInteger, "1", "", "", 1, 65536,
     "moe: ranks that share the experts"},
    {"parallel", "dispatch", kChoice, "auto", "", "auto|rows|tokens", 0, 0,
     "moe: what travels, a row for each expert or a token once a rank"},
    {"parallel", "receive_factor", kReal, "exact", "", "exact", 0, 1000000,
     "moe: room for so many times a balanced load; what spills takes further rounds"},
    {"parallel", "tensor_degree", kInteger, "1", "", "", 1, 65536, "moe and layer"},

    {"run", "op", kChoice, "attention", "", "attention|local|moe|layer", 0, 0, "what runs"},
    {"run", "backend", kChoice, "auto", "", "auto|cpu|cuda", 0, 0, ""},
    {"run", "kernel", kChoice, "auto", "", "auto|reference|naive|flash1|flash2|hopper", 0, 0, ""},
    {"run", "strict", kBoolean, "false", "", "", 0, 0, "refuse to fall back to another kernel"},
    {"run", "threads", kInteger, "", "OMP_NUM_THREADS, or cores / ranks", "", 1, 4096, "per rank"},
    {"run", "tile_q", kInteger, "", "the kernel's own", "", 1, 65536, "query rows of a tile"},
    {"run", "tile_k", kInteger, "", "the kernel's own", "", 1, 65536, "keys of a tile"},
    {"run", "pass", kChoice, "both", "", "forward|backward|both", 0, 0, ""},
    {"run", "warmup", kInteger, "1", "", "", 0, kMaxCount, "calls before timing"},
    {"run", "iterations", kInteger, "5", "", "", 1, kMaxCount, "timed calls"},
    {"run", "check", kChoice, "sample", "", "none|sample|full", 0, 0, "against float64"},
    {"run", "seed", kInteger, "0", "", "", 0, kMaxSeed, "of the inputs"},
    {"run", "deterministic", kBoolean, "false", "", "", 0, 0, "same bits in backward too"},
    {"run", "timeout_s", kReal, "60", "", "", 0, 1000000,
     "deadline of every wait, set-up included"},
    {"run", "suite", kChoice, "", "none", "accounting|classic", 0, 0,
     "a ready experiment instead of one run; classic needs op = local"},
    {"run", "routing", kChoice, "uniform", "", "router|uniform|balanced|zipf|one_hot", 0, 0,
     "moe: where tokens go"},
    {"run", "recompute", kChoice, "activation", "", "activation|hidden|dispatch", 0, 0,
     "moe: what backward computes again"},
    {"run", "hardware_counters", kBoolean, "false", "", "", 0, 0, "read FLOPs from the device"},
    {"run", "shrink", kInteger, "1", "", "", 1, kMaxLength,
     "divide lengths, and widths of experts, to try a large run on a small machine"},

    {"report", "json", kPath, "", "none", "", 0, 0,
     "machine-readable report; - is standard output"},
    {"report", "html", kPath, "", "none", "", 0, 0, "report as a page"},
    {"report", "trace", kPath, "", "none", "", 0, 0,
     "bench: what every rank did when, for Perfetto; - is standard output"},
    {"report", "svg", kPath, "", "none", "", 0, 0, "picture of the mask, or of a suite"},
    {"report", "quiet", kBoolean, "false", "", "", 0, 0, "no table"},
    {"report", "log_level", kChoice, "", "info on rank 0, warn on others",
     "debug|info|warn|error|off", 0, 0, ""},
    {"report", "log_dir", kPath, "", "none", "", 0, 0, "folder with a debug log for each rank"},

    {"report", "matrix", kBoolean, "false", "", "", 0, 0, "doctor: what each kernel serves"},

    {"attend", "q", kPath, "", "required", "", 0, 0,
     "[batch, seq, heads, dim]: FILE.npy or FILE.safetensors:NAME"},
    {"attend", "k", kPath, "", "required", "", 0, 0, "[batch, seq_kv, heads_kv, dim]"},
    {"attend", "v", kPath, "", "required", "", 0, 0, "[batch, seq_kv, heads_kv, dim_v]"},
    {"attend", "out", kPath, "", "required", "", 0, 0, "[batch, seq, heads, dim_v], written"},
    {"attend", "lse", kPath, "", "none", "", 0, 0, "[batch, heads, seq] f32, written"},
    {"attend", "dout", kPath, "", "none", "", 0, 0, "as out; then backward runs too"},
    {"attend", "dq", kPath, "", "none", "", 0, 0, "as q, written"},
    {"attend", "dk", kPath, "", "none", "", 0, 0, "as k, written"},
    {"attend", "dv", kPath, "", "none", "", 0, 0, "as v, written"},

    {"route", "router", kChoice, "", "required", "deepseek_v3|mixtral|qwen3|switch", 0, 0, ""},
    {"route", "logits", kPath, "", "required", "", 0, 0,
     "[tokens, experts]: FILE.npy or FILE.safetensors:NAME"},
    {"route", "bias", kPath, "", "none", "", 0, 0,
     "[experts], added where experts are selected; deepseek_v3"},
    {"route", "groups", kInteger, "", "8 of deepseek_v3, else 1", "", 1, kMaxCount,
     "groups of neighbouring experts"},
    {"route", "groups_kept", kInteger, "", "4 of deepseek_v3, else 1", "", 1, kMaxCount,
     "groups that a token may use"},
    {"route", "renormalize", kChoice, "", "qwen3, deepseek_v3: true", "true|false", 0, 0,
     "weights of a token sum to the router's scale"},
    {"route", "capacity_factor", kReal, "off", "", "off", 0, 1000000,
     "an expert keeps ceil(tokens k factor / experts) pairs"},
    {"route", "drop_policy", kChoice, "probability", "", "probability|position", 0, 0,
     "which pairs it keeps"},
    {"route", "indices", kPath, "", "none", "", 0, 0, "[tokens, k] i32 .npy, written; -1: none"},
    {"route", "weights", kPath, "", "none", "", 0, 0, "[tokens, k] f32 .npy, written"},

    {"mask", "tile", kInteger, "128", "", "", 1, kMaxLength, "rows and columns of a tile"},
    {"mask", "labels", kPath, "", "none", "", 0, 0,
     "of the tokens, one a line, drawn below 2000 tokens"},

    {"cost", "stage", kChoice, "prefill", "", "prefill|decode|chunked", 0, 0, ""},
    {"cost", "prompt", kInteger, "", "none", "", 0, kMaxLength, "decode: tokens in the cache"},
    {"cost", "generated", kInteger, "0", "", "", 0, kMaxLength, "decode: tokens made so far"},
    {"cost", "beam", kInteger, "1", "", "", 1, kMaxCount, "decode: beams of a request"},
    {"cost", "past", kInteger, "", "0", "", 0, kMaxLength, "chunked: keys in the cache"},
    {"cost", "new", kInteger, "", "none", "", 0, kMaxLength, "chunked: tokens of the chunk"},
    {"cost", "chunks", kText, "", "none", "", 0, 0, "chunked: PAST:NEW,..."},
    {"cost", "decode_kv", kText, "", "none", "", 0, 0,
     "chunked: KV, COUNTxKV or PB/DB/PROMPT/GENERATED, ..."},
    {"cost", "sp", kInteger, "1", "", "", 1, 65536, "sequence-parallel ranks"},
    {"cost", "tp", kInteger, "1", "", "", 1, 65536, "tensor-parallel ranks"},
    {"cost", "ep", kInteger, "1", "", "", 1, 65536, "expert-parallel ranks"},
    {"cost", "softmax_factor", kReal, "3", "", "", 0, 1000000, "of the _x3 accountings"},
    {"cost", "mode", kChoice, "corrected", "", "original|corrected", 0, 0,
     "the accounting that drives predicted time"},
    {"cost", "policy", kChoice, "uniform", "", "uniform|legacy", 0, 0,
     "legacy: dense layers corrected, moe layers original, whatever the mode"},
    {"cost", "pp", kInteger, "1", "", "", 1, 65536, "pipeline stages; latency only"},
    {"cost", "system", kText, "", "none", "", 0, 0,
     "rates from configs/systems/NAME.cfg, or a file"},
    {"cost", "compare_modes", kBoolean, "false", "", "", 0, 0,
     "time to first token and per token in both modes; needs system and a model"},
    {"cost", "legacy_model", kPath, "", "none", "", 0, 0,
     "GenZ's config.json of the model: weights of both, and why they differ"},
    {"cost", "precision", kChoice, "", "the model's, or dtype",
     "f32|bf16|int8|fp8|fp6|int4|fp4|int2", 0, 0, "latency only: of weights and cache"},
    {"cost", "efficiency", kReal, "", "the system's", "", 0, 0, "of compute and memory rates"},
    {"cost", "offload", kBoolean, "false", "", "", 0, 0,
     "what does not fit the device streams from the host"},
};
// clang-format on

std::size_t distance(std::string_view a, std::string_view b) {
  std::string row(b.size() + 1, '\0');  // distances of words this short fit a byte
  for (std::size_t j = 0; j < row.size(); ++j) row[j] = static_cast<char>(j);
  for (std::size_t i = 1; i <= a.size(); ++i) {
    int diagonal = row[0];
    row[0] = static_cast<char>(i);
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const int replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = row[j];
      row[j] = static_cast<char>(std::min({replaced, row[j] + 1, row[j - 1] + 1}));
    }
  }
  return static_cast<std::size_t>(row.back());
}

}  // namespace

std::span<const Key> keys() { return kKeys; }

const Key* find_key(std::string_view name) {
  const auto* found = std::ranges::find(kKeys, name, &Key::name);
  return found == std::end(kKeys) ? nullptr : found;
}

bool is_section(std::string_view name) {
  return std::ranges::find(kKeys, name, &Key::section) != std::end(kKeys);
}

std::string option_of(std::string_view name) {
  std::string option = "--" + std::string(name);
  std::ranges::replace(option, '_', '-');
  return option;
}

std::string variable_of(std::string_view name) {
  std::string variable = "ANNULUS_";
  for (const char c : name)
    variable += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return variable;
}

std::string nearest(std::string_view word, std::span<const std::string> candidates) {
  constexpr std::size_t kLongest = 64;  // distance() counts in bytes, and nobody types more
  if (word.size() > kLongest) return {};
  std::string best;
  std::size_t least = std::max<std::size_t>(2, word.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    // An abbreviation is refused, but what it stands for is no riddle.
    const bool starts = word.size() > 3 && candidate.starts_with(word);
    const std::size_t d = starts ? 1 : distance(word, candidate);
    if (d < least) {
      least = d;
      best = candidate;
    }
  }
  return best;
}

}  // namespace annulus::launch
