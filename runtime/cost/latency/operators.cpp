// The operator lists of GenZ at commit 091bdd0, from the formulas in tests/data/README.md.
// Faithful, flaws included: no causality, a one-hot embedding product, no sequence-parallel
// transfers.
#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"

#include <algorithm>

namespace annulus::cost {
namespace {

/// Where activations live.
enum class Place : std::uint8_t { off_chip, input_on_chip, output_on_chip, both_on_chip };

class Builder {
 public:
  Builder(const LatencyRequest& request, std::int64_t micro_batch)
      : r_(request),
        batch_(request.stage == Stage::decode ? times(micro_batch, request.beam) : micro_batch),
        prompt_batch_(micro_batch),
        heads_(ceil_div(request.model.heads, request.tp)),
        heads_kv_(ceil_div(request.model.heads_kv, request.tp)) {}

  std::vector<OperatorRow> build() {
    const Tokens tokens = token_count();
    if (r_.stage != Stage::decode) embedding();
    bool first = true;
    for (const std::int64_t layers : layers_by_stage(r_)) {
      if (!first) sync("Message Pass", Collective::message_pass, 1, tokens.ffn, r_.model.hidden, 1);
      first = false;
      decoder(tokens, layers);
    }
    classifier();
    return std::move(rows_);
  }

 private:
  /// Tokens of one sequence that one rank projects, and that pass its FFN.
  struct Tokens {
    std::int64_t projected = 1;
    std::int64_t ffn = 1;
  };

  Tokens token_count() const {
    if (r_.stage == Stage::decode) return {};
    const std::int64_t tokens = step_tokens();
    const std::int64_t share = tokens / r_.sp;
    // A chunked step divides only the FFN.
    return {r_.stage == Stage::chunked ? tokens : share, share};
  }

  std::int64_t fresh_tokens() const {
    std::int64_t tokens = 0;
    for (const PrefillChunk& chunk : r_.chunks) tokens = plus(tokens, chunk.fresh);
    return tokens;
  }

  std::int64_t step_tokens() const {
    if (r_.stage == Stage::prefill) return r_.seq;
    std::int64_t tokens = fresh_tokens();
    for (const DecodeEntry& entry : r_.decodes) {
      tokens = plus(tokens, entry.beams ? times(entry.count, entry.decode_batch) : entry.count);
    }
    return tokens;
  }

  /// Embedding and classifier keep one token where sp would leave none.
  std::int64_t kept(std::int64_t tokens) const {
    return tokens == 0 ? 0 : std::max<std::int64_t>(1, tokens / r_.sp);
  }

  void gemm(const char* name, std::int64_t out, std::int64_t tokens, std::int64_t in, Place place,
            std::int64_t repeat) {
    OperatorRow row;
    row.name = name;
    row.repeat = repeat;
    row.macs = product({batch_, tokens, in, out});
    row.input_elements = product({batch_, tokens, in});
    row.weight_elements = times(in, out);
    row.output_elements = product({batch_, tokens, out});
    put(row, place);
  }

  /// Of `batch` sequences: `heads` query heads with `queries` rows each over `keys` keys.
  struct Scores {
    std::int64_t batch = 1, heads = 1, heads_kv = 1, queries = 1, keys = 0;
  };

  void attention(OperatorKind kind, const char* name, const Scores& s, Place place,
                 std::int64_t repeat) {
    const std::int64_t dim = r_.model.head_dim;
    const std::int64_t vectors = product({s.batch, s.heads, s.queries, dim});
    const std::int64_t scores = product({s.batch, s.heads, s.queries, s.keys});
    OperatorRow row;
    row.name = name;
    row.kind = kind;
    row.repeat = repeat;
    row.macs = scaled_count(times(scores, dim), r_.softmax_factor);
    row.input_elements = kind == OperatorKind::logit ? vectors : scores;
    row.weight_elements = product({s.batch, s.heads_kv, s.keys, dim});
    row.output_elements = kind == OperatorKind::logit ? scores : vectors;
    put(row, place);
  }

  void put(OperatorRow& row, Place place) {
    row.input_on_chip = place == Place::input_on_chip || place == Place::both_on_chip;
    row.output_on_chip = place == Place::output_on_chip || place == Place::both_on_chip;
    rows_.push_back(row);
  }

  void sync(const char* name, Collective collective, std::int64_t ranks, std::int64_t tokens,
            std::int64_t width, std::int64_t repeat) {
    OperatorRow row;
    row.name = name;
    row.kind = OperatorKind::sync;
    row.repeat = repeat;
    row.collective = collective;
    row.ranks = ranks;
    row.sent_elements = product({batch_, tokens, width});
    rows_.push_back(row);
  }

  void all_reduce(const char* name, std::int64_t tokens, std::int64_t repeat) {
    if (r_.tp > 1) sync(name, Collective::all_reduce, r_.tp, tokens, r_.model.hidden, repeat);
  }

  void embedding() {
    const std::int64_t tokens = kept(r_.stage == Stage::prefill ? r_.seq : fresh_tokens());
    gemm("embeddings", r_.model.hidden, tokens, r_.model.vocab / r_.tp, Place::off_chip, 1);
    all_reduce("Emb_AR", tokens, 1);
  }

  void classifier() {
    const std::int64_t tokens = r_.stage == Stage::decode ? 1 : kept(step_tokens());
    gemm("classifier", r_.model.vocab / r_.tp, tokens, r_.model.hidden, Place::off_chip, 1);
    if (r_.tp > 1) {
      sync("classifier_AG", Collective::all_gather, r_.tp, tokens, r_.model.vocab, 1);
    }
  }

  void decoder(const Tokens& tokens, std::int64_t layers) {
    const ModelShape& m = r_.model;
    const Place projections = r_.stage == Stage::prefill ? Place::off_chip : Place::both_on_chip;
    const Place ffn = r_.stage == Stage::decode ? Place::both_on_chip : Place::off_chip;
    const std::int64_t qkv = times(plus(heads_, times(2, heads_kv_)), m.head_dim);
    const std::int64_t width = ceil_div(m.ffn, r_.tp);
    gemm("QKV", qkv, tokens.projected, m.hidden, projections, layers);
    attend(layers);
    gemm("Out Proj", m.hidden, tokens.projected, times(heads_, m.head_dim), projections, layers);
    all_reduce("MHA AR", tokens.projected, layers);
    gemm(m.ffn_inputs > 1 ? "up+gate" : "up", times(width, m.ffn_inputs), tokens.ffn, m.hidden, ffn,
         layers);
    gemm("down", m.hidden, tokens.ffn, width, ffn, layers);
    all_reduce("FFN AR", tokens.ffn, layers);
  }

  /// The keys that a rank's queries meet: here, and nowhere else, the modes differ.
  std::int64_t keys(std::int64_t prompt) const {
    return r_.mode == CostMode::original ? prompt / r_.sp : prompt;
  }

  void attend(std::int64_t layers) {
    if (r_.stage == Stage::prefill) {
      const Scores s{batch_, heads_, heads_kv_, r_.seq, keys(r_.seq)};
      attention(OperatorKind::logit, "Logit", s, Place::output_on_chip, layers);
      attention(OperatorKind::attend, "Attend", s, Place::input_on_chip, layers);
    } else if (r_.stage == Stage::decode) {
      const Scores pre{prompt_batch_, heads_, heads_kv_, 1, keys(r_.prompt)};
      const Scores suf{batch_, heads_, heads_kv_, 1, r_.generated};
      attention(OperatorKind::logit, "Logit Pre", pre, Place::both_on_chip, layers);
      attention(OperatorKind::logit, "Logit Suf", suf, Place::both_on_chip, layers);
      attention(OperatorKind::attend, "Attend Pre", pre, Place::both_on_chip, layers);
      attention(OperatorKind::attend, "Attend Suf", suf, Place::both_on_chip, layers);
    } else {
      for (const PrefillChunk& chunk : r_.chunks) attend_chunk(chunk, layers);
      for (const DecodeEntry& entry : r_.decodes) attend_decode(entry, layers);
    }
  }

  void attend_chunk(const PrefillChunk& chunk, std::int64_t layers) {
    const Scores s{batch_, heads_, heads_kv_, chunk.fresh, plus(chunk.past, chunk.fresh)};
    attention(OperatorKind::logit, "Logit Pre", s, Place::output_on_chip, layers);
    attention(OperatorKind::attend, "Attend Pre", s, Place::input_on_chip, layers);
  }

  void attend_pair(const char* logit, const char* attend, const Scores& s, std::int64_t layers) {
    attention(OperatorKind::logit, logit, s, Place::both_on_chip, layers);
    attention(OperatorKind::attend, attend, s, Place::both_on_chip, layers);
  }

  void attend_decode(const DecodeEntry& entry, std::int64_t layers) {
    if (!entry.beams) {
      attend_pair("Logit Dec", "Attend Dec",
                  {batch_, times(entry.count, heads_), times(entry.count, heads_kv_), 1, entry.kv},
                  layers);
      return;
    }
    // The cache of one beam is counted for all of them, and sp divides in both modes.
    for (std::int64_t i = 0; i < entry.count; ++i) {
      attend_pair("Logit Pre", "Attend Pre",
                  {batch_, times(entry.prompt_batch, heads_), heads_kv_, 1, entry.prompt / r_.sp},
                  layers);
      attend_pair("Logit Suf", "Attend Suf",
                  {batch_, times(entry.decode_batch, heads_), heads_kv_, 1, entry.generated},
                  layers);
    }
  }

  const LatencyRequest& r_;
  std::int64_t batch_;
  std::int64_t prompt_batch_;
  std::int64_t heads_;
  std::int64_t heads_kv_;
  std::vector<OperatorRow> rows_;
};

}  // namespace

std::vector<OperatorRow> operators_of(const LatencyRequest& request, std::int64_t micro_batch) {
  return Builder(request, micro_batch).build();
}

}  // namespace annulus::cost
