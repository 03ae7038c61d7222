#include "launch/options/value.h"
#include "launch/request/problem.h"

#include <fmt/format.h>

#include <algorithm>

namespace annulus::launch {
namespace {

/// Rows are compiled one by one up to here; beyond it only masks with a formula are priced.
constexpr std::int64_t kMostRows = std::int64_t{1} << 24;

/// The whole number in `text`, or a refusal of `key` that shows the grammar.
std::int64_t number_in(const Settings& settings, std::string_view key, const std::string& text,
                       std::string_view grammar) {
  std::int64_t value = 0;
  if (!read_integer(text, value) || value < 0 || value > (std::int64_t{1} << 32)) {
    settings.refuse(key, fmt::format("holds '{}'; allowed: {}", text, grammar));
  }
  return value;
}

std::vector<PrefillChunk> chunks_of(const Settings& settings) {
  constexpr std::string_view kGrammar = "PAST:NEW, separated by commas, such as 0:300,2048:212";
  std::vector<PrefillChunk> chunks;
  if (settings.has("new")) {
    chunks.push_back(
        {.past = settings.maybe_integer("past").value_or(0), .fresh = settings.integer("new")});
  }
  if (!settings.has("chunks")) return chunks;
  for (const std::string& word : split(settings.text("chunks"), ',')) {
    const std::vector<std::string> parts = split(word, ':');
    if (parts.size() != 2) {
      settings.refuse("chunks", fmt::format("holds '{}'; allowed: {}", word, kGrammar));
    }
    chunks.push_back({.past = number_in(settings, "chunks", parts[0], kGrammar),
                      .fresh = number_in(settings, "chunks", parts[1], kGrammar)});
  }
  return chunks;
}

DecodeEntry decode_entry(const Settings& settings, const std::string& word) {
  constexpr std::string_view kGrammar =
      "KV, COUNTxKV or PROMPT_BATCH/DECODE_BATCH/PROMPT/GENERATED, separated by commas, such as "
      "80,4x2048,1/4/1000/37";
  const auto number = [&](const std::string& text) {
    return number_in(settings, "decode_kv", text, kGrammar);
  };
  if (const auto parts = split(word, '/'); parts.size() == 4) {
    return {.count = 1,
            .kv = 0,
            .beams = true,
            .prompt_batch = number(parts[0]),
            .decode_batch = number(parts[1]),
            .prompt = number(parts[2]),
            .generated = number(parts[3])};
  }
  if (const auto parts = split(word, 'x'); parts.size() == 2) {
    return {.count = number(parts[0]), .kv = number(parts[1])};
  }
  return {.count = 1, .kv = number(word)};
}

std::vector<DecodeEntry> decodes_of(const Settings& settings) {
  std::vector<DecodeEntry> entries;
  if (!settings.has("decode_kv")) return entries;
  for (const std::string& word : split(settings.text("decode_kv"), ',')) {
    entries.push_back(decode_entry(settings, word));
  }
  return entries;
}

/// Unmasked pairs by the rank that owns the query row.
std::vector<std::int64_t> pairs_by_rank(const Settings& settings, const Problem& problem,
                                        int ranks) {
  const std::vector<RowIntervals> rows = compile_mask(problem);
  const Sharding sharding = solve_layout(layout_of(settings), problem, ranks);
  std::vector<std::int64_t> pairs;
  for (int rank = 0; rank < ranks; ++rank) {
    std::int64_t sum = 0;
    for (const TokenRange& range : sharding.shard(rank)) {
      for (std::int64_t i = 0; i < range.count; ++i) {
        for (const KeyInterval& keys : rows[static_cast<std::size_t>(range.position(i))]) {
          sum += keys.end - keys.begin;
        }
      }
    }
    pairs.push_back(sum);
  }
  return pairs;
}

void fill_prefill(const Settings& settings, CostRequest& request) {
  const Problem problem = problem_of(settings);
  request.seq = problem.seq;
  if (problem.seq_kv) request.full_pairs = problem.seq * *problem.seq_kv;
  if (problem.seq <= kMostRows) {
    request.masked_pairs_by_rank = pairs_by_rank(settings, problem, static_cast<int>(request.sp));
  } else if (!(problem.mask == Mask::causal()) ||
             problem.seq_kv.value_or(problem.seq) != problem.seq) {
    settings.refuse("seq", "is too long for this mask; allowed: up to 16M, any for causal");
  }
}

}  // namespace

CostRequest cost_request_of(const Settings& settings) {
  const std::string& stage = settings.text("stage");
  CostRequest request;
  request.batch = settings.integer("batch");
  request.heads = settings.integer("heads");
  request.heads_kv = settings.maybe_integer("heads_kv").value_or(request.heads);
  request.head_dim = settings.integer("head_dim");
  request.head_dim_v = settings.maybe_integer("head_dim_v").value_or(request.head_dim);
  request.layers = settings.integer("layers");
  request.sp = settings.integer("sp");
  request.tp = settings.integer("tp");
  request.ep = settings.integer("ep");
  request.softmax_factor = settings.real("softmax_factor");
  request.mode = settings.text("mode") == "original" ? CostMode::original : CostMode::corrected;
  request.mode_source = settings.source("mode");
  if (stage == "prefill") {
    fill_prefill(settings, request);
  } else if (stage == "decode") {
    request.stage = Stage::decode;
    request.prompt = settings.integer("prompt");
    request.generated = settings.integer("generated");
    request.beam = settings.integer("beam");
  } else {
    request.stage = Stage::chunked;
    request.chunks = chunks_of(settings);
    request.decodes = decodes_of(settings);
    if (request.chunks.empty() && request.decodes.empty()) {
      settings.refuse("stage", "needs new (with past), chunks or decode_kv");
    }
  }
  return request;
}

}  // namespace annulus::launch
