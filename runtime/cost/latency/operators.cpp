// The operator lists of GenZ at commit 091bdd0, from the formulas in tests/data/README.md.
// Faithful, flaws included: no causality, a one-hot embedding product, no sequence-parallel
// transfers.
#include "runtime/cost/accounting.h"
#include "runtime/cost/count.h"
#include "runtime/cost/latency/operators.h"
#include "runtime/cost/latency/row_list.h"

#include <algorithm>

namespace annulus::cost {
namespace {

class Builder {
 public:
  Builder(const LatencyRequest& request, std::int64_t micro_batch)
      : r_(request),
        batch_(request.stage == Stage::decode ? times(micro_batch, request.beam) : micro_batch),
        prompt_batch_(micro_batch),
        ranks_(times(request.tp, request.ep)),
        heads_(ceil_div(request.model.heads, ranks_)),
        latent_(request.rule == DimsRule::model && request.model.latent.kv_rank > 0),
        absorbed_(latent_ && request.stage != Stage::prefill),
        heads_kv_(absorbed_ ? 1 : ceil_div(request.model.heads_kv, ranks_)),
        rows_(batch_) {}

  std::vector<OperatorRow> build() {
    const Tokens tokens = token_count();
    if (r_.stage != Stage::decode) embedding();
    bool first = true;
    for (const std::vector<LayerGroup>& stage : kinds_by_stage(r_)) {
      if (!first) {
        rows_.sync("Message Pass", Collective::message_pass, 1, tokens.ffn, r_.model.hidden, 1);
      }
      first = false;
      for (const LayerGroup& group : stage) decoder(tokens, group);
    }
    classifier();
    return rows_.take();
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

  /// Of `batch` sequences: `heads` query heads with `queries` rows each over `keys` keys.
  struct Scores {
    std::int64_t batch = 1, heads = 1, heads_kv = 1, queries = 1, keys = 0;
  };

  /// Of one head in a product. Absorbed: queries meet the cached latent itself.
  std::int64_t width(OperatorKind kind) const {
    const LatentShape& l = r_.model.latent;
    if (absorbed_) return kind == OperatorKind::logit ? plus(l.kv_rank, l.rope) : l.kv_rank;
    return kind == OperatorKind::logit ? r_.model.head_dim : r_.model.value_dim();
  }

  void attention(OperatorKind kind, const char* name, const Scores& s, Place place,
                 std::int64_t repeat) {
    const std::int64_t dim = width(kind);
    const std::int64_t vectors = product({s.batch, s.heads, s.queries, dim});
    const std::int64_t scores = product({s.batch, s.heads, s.queries, s.keys});
    OperatorRow row;
    row.name = name;
    row.kind = kind;
    row.repeat = repeat;
    row.macs = scaled_count(times(scores, dim), r_.softmax_factor);
    row.input_elements = kind == OperatorKind::logit ? vectors : scores;
    row.weight_elements = product({s.batch, s.heads_kv, s.keys, dim});
    // The latent of a token is its keys and its values: Logit has read it.
    if (absorbed_ && kind == OperatorKind::attend) row.weight_elements = 0;
    row.output_elements = kind == OperatorKind::logit ? scores : vectors;
    rows_.put(std::move(row), place);
  }

  void all_reduce(const char* name, std::int64_t tokens, std::int64_t repeat) {
    if (ranks_ == 1) return;
    rows_.sync(name, Collective::all_reduce, ranks_, tokens, r_.model.hidden, repeat);
  }

  void embedding() {
    const std::int64_t tokens = kept(r_.stage == Stage::prefill ? r_.seq : fresh_tokens());
    rows_.gemm("embeddings", r_.model.hidden, tokens, r_.model.vocab / ranks_, Place::off_chip, 1);
    all_reduce("Emb_AR", tokens, 1);
  }

  void classifier() {
    const std::int64_t tokens = r_.stage == Stage::decode ? 1 : kept(step_tokens());
    rows_.gemm("classifier", r_.model.vocab / ranks_, tokens, r_.model.hidden, Place::off_chip, 1);
    if (ranks_ == 1) return;
    rows_.sync("classifier_AG", Collective::all_gather, ranks_, tokens, r_.model.vocab, 1);
  }

  void project(std::int64_t tokens, Place place, std::int64_t layers) {
    const ModelShape& m = r_.model;
    const std::int64_t queries = times(heads_, m.head_dim);
    if (!latent_) {
      const std::int64_t pairs = times(heads_kv_, plus(m.head_dim, m.value_dim()));
      rows_.gemm("QKV", plus(queries, pairs), tokens, m.hidden, place, layers);
      return;
    }
    // Every rank has the narrow projections whole. Absorbed, the wide one of keys and values is
    // applied to queries and outputs instead: as many MACs and weights for a token.
    const LatentShape& l = m.latent;
    if (l.q_rank > 0) rows_.gemm("Q down", l.q_rank, tokens, m.hidden, place, layers);
    rows_.gemm("Q up", queries, tokens, l.q_rank > 0 ? l.q_rank : m.hidden, place, layers);
    rows_.gemm("KV down", plus(l.kv_rank, l.rope), tokens, m.hidden, place, layers);
    rows_.gemm("KV up", times(heads_, plus(m.head_dim - l.rope, m.value_dim())), tokens, l.kv_rank,
               place, layers);
  }

  void decoder(const Tokens& tokens, const LayerGroup& group) {
    const ModelShape& m = r_.model;
    const std::int64_t layers = group.count;
    const Place projections = r_.stage == Stage::prefill ? Place::off_chip : Place::both_on_chip;
    project(tokens.projected, projections, layers);
    mode_ = mode_of(r_.mode, r_.policy, group.kind);
    attend(layers);
    rows_.gemm("Out Proj", m.hidden, tokens.projected, times(heads_, m.value_dim()), projections,
               layers);
    all_reduce("MHA AR", tokens.projected, layers);
    add_ffn(r_, group.kind, tokens.ffn, r_.stage == Stage::decode ? 1 : step_tokens(), layers,
            rows_);
  }

  /// The keys that a rank's queries meet: here, and nowhere else, the modes differ.
  std::int64_t keys(std::int64_t prompt) const {
    return mode_ == CostMode::original ? prompt / r_.sp : prompt;
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
  std::int64_t ranks_;
  std::int64_t heads_;
  bool latent_;
  bool absorbed_;  ///< keys come from the cache of latents, which one head stands for
  std::int64_t heads_kv_;
  CostMode mode_ = CostMode::original;  ///< of the layers that are being added
  RowList rows_;
};

}  // namespace

std::vector<OperatorRow> operators_of(const LatencyRequest& request, std::int64_t micro_batch) {
  return Builder(request, micro_batch).build();
}

}  // namespace annulus::cost
