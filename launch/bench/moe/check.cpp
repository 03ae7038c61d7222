#include "launch/bench/moe/check.h"

#include "launch/bench/element.h"
#include "launch/bench/measure.h"
#include "launch/bench/moe/oracle.h"

#include <annulus/collective.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>

namespace annulus::launch {
namespace {

enum Output : std::size_t {
  kWeights,
  kY,
  kDx,
  kDweights,
  kDgate,
  kDup,
  kDdown,
  kSharedDgate,
  kSharedDup,
  kSharedDdown,
  kDrouter,
  kOutputs
};
constexpr std::array<const char*, kOutputs> kNames{
    "weights",      "y",          "dx",           "dweights", "dgate", "dup", "ddown",
    "shared_dgate", "shared_dup", "shared_ddown", "drouter"};

constexpr double kLeastScale = 0.05;  // results are of order 1; of nothing, rounding is measured
constexpr double kSampleFlops = 5e8;  // of a rank
constexpr std::int64_t kSampleColumns = 2;  // of ffn, of each sampled expert
constexpr std::int64_t kSampleExperts = 3;

struct Deviation {
  double error = 0;
  double scale = kLeastScale;
  double elements = 0;

  void add(double x, double ref) {
    ++elements;
    const double difference = std::abs(x - ref);
    error = std::isnan(difference) ? std::numeric_limits<double>::infinity()
                                   : std::max(error, difference);
    scale = std::max(scale, std::abs(ref));
  }
};
using Deviations = std::array<Deviation, kOutputs>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// One pair of any rank.
struct Pair {
  std::int64_t token = 0;
  double weight = 0;
};

class Checker {
 public:
  Checker(Mesh& mesh, const MoeRun& run, bool backward, bool sampled)
      : mesh_(mesh),
        run_(run),
        c_(run.request().config),
        routing_(run.step().routing()),
        backward_(backward),
        sampled_(sampled) {}

  Deviations run() {
    choose_tokens();
    if (c_.router) take_router_weights();
    run_experts();
    if (backward_ && c_.router) router_backward();
    compare_tokens();
    if (backward_) {
      compare_expert_gradients();
      compare_shared_gradients();
    }
    return deviations_;
  }

 private:
  struct Chosen {
    std::int64_t local = 0;
    std::vector<double> x{}, dy{}, y{}, dx{}, logits{};
    std::vector<double> weights{}, dweights{};  ///< [k]
  };

  void choose_tokens() {
    const auto tokens = static_cast<std::int64_t>(run_.tokens().size());
    const double each = 12.0 * static_cast<double>(c_.hidden * (c_.ffn * c_.k + c_.shared_ffn));
    std::int64_t n = tokens;
    if (sampled_) n = std::min(tokens, 1 + static_cast<std::int64_t>(kSampleFlops / each));
    for (std::int64_t i = 0; i < n; ++i) {
      Chosen chosen{.local = i * tokens / n};
      const std::int64_t token = run_.tokens()[at(chosen.local)];
      chosen.x.resize(at(c_.hidden));
      run_.source().x(token, chosen.x.data());
      if (backward_) {
        chosen.dy.resize(at(c_.hidden));
        run_.source().dy(token, chosen.dy.data());
        chosen.dx.resize(at(c_.hidden));
      }
      chosen.y.resize(at(c_.hidden));
      for (std::int64_t s = 0; s < c_.k; ++s) {
        chosen.weights.push_back(static_cast<double>(routing_.weights[pair(chosen, s)]));
      }
      chosen.dweights.resize(at(c_.k));
      chosen_.push_back(std::move(chosen));
    }
  }

  std::size_t pair(const Chosen& chosen, std::int64_t slot) const {
    return at(chosen.local * c_.k + slot);
  }
  /// -1: capacity dropped it.
  std::span<const std::int32_t> kept(const Chosen& chosen) const {
    return std::span(routing_.indices).subspan(pair(chosen, 0), at(c_.k));
  }
  /// The router's weights of what is kept depend on what was dropped.
  std::span<const std::int32_t> selected(const Chosen& chosen) const {
    return std::span(run_.step().selected().indices).subspan(pair(chosen, 0), at(c_.k));
  }

  /// The router's own arithmetic is checked too: the oracle goes on with its weights.
  void take_router_weights() {
    std::vector<double> row(at(c_.hidden));
    for (Chosen& chosen : chosen_) chosen.logits.resize(at(c_.experts));
    for (std::int64_t e = 0; e < c_.experts; ++e) {
      run_.source().weights(MoeSource::Part::router, 0, e, row.data());
      for (Chosen& chosen : chosen_) {
        for (std::size_t h = 0; h < row.size(); ++h) chosen.logits[at(e)] += row[h] * chosen.x[h];
      }
    }
    for (Chosen& chosen : chosen_) {
      auto truth = oracle_router(*c_.router, chosen.logits, selected(chosen), {});
      for (std::size_t s = 0; s < truth.weights.size(); ++s) {
        if (kept(chosen)[s] < 0) truth.weights[s] = 0;
        deviations_[kWeights].add(chosen.weights[s], truth.weights[s]);
      }
      chosen.weights = truth.weights;
    }
  }

  OracleToken oracle_token(Chosen& chosen, double weight) const {
    return {.x = chosen.x,
            .dy = chosen.dy,
            .weight = weight,
            .y = chosen.y.data(),
            .dx = backward_ ? chosen.dx.data() : nullptr,
            .dweight = 0.0};
  }

  void run_experts() {
    std::map<std::int32_t, std::vector<std::pair<std::size_t, std::size_t>>> by_expert;
    for (std::size_t i = 0; i < chosen_.size(); ++i) {
      const auto experts = kept(chosen_[i]);
      for (std::size_t s = 0; s < experts.size(); ++s) {
        if (experts[s] >= 0) by_expert[experts[s]].emplace_back(i, s);
      }
    }
    for (const auto& [expert, pairs] : by_expert) {
      std::vector<OracleToken> tokens;
      for (const auto& [i, s] : pairs) {
        tokens.push_back(oracle_token(chosen_[i], chosen_[i].weights[s]));
      }
      run_expert(OracleExpert(run_.request(), run_.source(), false, expert), tokens);
      for (std::size_t p = 0; p < pairs.size(); ++p) {
        chosen_[pairs[p].first].dweights[pairs[p].second] = tokens[p].dweight;
      }
    }
    if (c_.shared_ffn == 0) return;
    std::vector<OracleToken> tokens;
    for (Chosen& chosen : chosen_) tokens.push_back(oracle_token(chosen, 1.0));
    run_expert(OracleExpert(run_.request(), run_.source(), true, 0), tokens);
  }

  static void run_expert(OracleExpert expert, std::vector<OracleToken>& tokens) {
    std::vector<OracleToken*> pointers;
    for (OracleToken& token : tokens) pointers.push_back(&token);
    expert.run(pointers);
  }

  void router_backward() {
    std::vector<double> gradient(sampled_ ? 0 : at(c_.experts * c_.hidden));
    std::vector<std::vector<double>> dlogits;
    for (const Chosen& chosen : chosen_) {
      dlogits.push_back(
          oracle_router(*c_.router, chosen.logits, selected(chosen), chosen.dweights).dlogits);
    }
    std::vector<double> row(at(c_.hidden));
    for (std::int64_t e = 0; e < c_.experts; ++e) {
      run_.source().weights(MoeSource::Part::router, 0, e, row.data());
      for (std::size_t i = 0; i < chosen_.size(); ++i) {
        const double dz = dlogits[i][at(e)];
        for (std::size_t h = 0; h < row.size(); ++h) {
          chosen_[i].dx[h] += dz * row[h];
          if (!sampled_) gradient[at(e * c_.hidden) + h] += dz * chosen_[i].x[h];
        }
      }
    }
    for (std::size_t i = 0; i < gradient.size(); ++i) {
      deviations_[kDrouter].add(element(run_.drouter(), static_cast<std::int64_t>(i)), gradient[i]);
    }
  }

  static double element(const Tensor& tensor, std::int64_t index) {
    return load_element(tensor.view().data, tensor.view().dtype, index);
  }

  void compare_tokens() {
    for (const Chosen& chosen : chosen_) {
      for (std::int64_t h = 0; h < c_.hidden; ++h) {
        const std::int64_t index = chosen.local * c_.hidden + h;
        deviations_[kY].add(element(run_.y(), index), chosen.y[at(h)]);
        if (backward_) deviations_[kDx].add(element(run_.dx(), index), chosen.dx[at(h)]);
      }
      for (std::int64_t s = 0; backward_ && s < c_.k; ++s) {
        deviations_[kDweights].add(static_cast<double>(run_.dweights()[pair(chosen, s)]),
                                   chosen.dweights[at(s)]);
      }
    }
  }

  /// The pairs of this rank's experts, of all ranks of its group.
  std::vector<std::vector<Pair>> gather_pairs() {
    struct Entry {
      std::int64_t token;
      double weight;
      std::int64_t expert;
    };
    const auto mine = static_cast<std::int64_t>(routing_.indices.size());
    const std::int64_t most = std::max<std::int64_t>(1, std::ranges::max(gather_one(mesh_, mine)));
    std::vector<Entry> own(at(most), Entry{0, 0, -1});
    for (std::int64_t i = 0; i < mine; ++i) {
      own[at(i)] = {run_.tokens()[at(i / c_.k)], static_cast<double>(routing_.weights[at(i)]),
                    routing_.indices[at(i)]};
    }
    std::vector<Entry> all(at(most * mesh_.world()));
    all_gather(mesh_, std::as_bytes(std::span(own)), std::as_writable_bytes(std::span(all)),
               "bench: routings of the ranks");
    const std::int64_t local = run_.layer().local_experts();
    const std::int64_t degree = run_.layer().expert_degree();
    const std::int64_t first = mesh_.rank() / degree * degree;
    std::vector<std::vector<Pair>> pairs(at(local));
    for (std::int64_t i = first * most; i < (first + degree) * most; ++i) {
      const std::int64_t e = all[at(i)].expert - run_.layer().expert_rank() * local;
      if (all[at(i)].expert >= 0 && e >= 0 && e < local) {
        pairs[at(e)].push_back({all[at(i)].token, all[at(i)].weight});
      }
    }
    return pairs;
  }

  OracleGradients columns(std::int64_t ffn) const {
    OracleGradients g;
    const std::int64_t n = sampled_ ? std::min(ffn, kSampleColumns) : ffn;
    for (std::int64_t i = 0; i < n; ++i) g.ffn.push_back(i * ffn / n);
    g.gate.resize(at(n * c_.hidden));
    g.up = g.down = g.gate;
    return g;
  }

  OracleGradients gradients_of(bool shared, std::int64_t expert, const std::vector<Pair>& pairs) {
    OracleGradients g = columns(shared ? c_.shared_ffn : c_.ffn);
    OracleExpert oracle(run_.request(), run_.source(), shared, expert);
    OracleToken token;
    token.x.resize(at(c_.hidden));
    token.dy.resize(at(c_.hidden));
    for (const Pair& p : pairs) {
      run_.source().x(p.token, token.x.data());
      run_.source().dy(p.token, token.dy.data());
      token.weight = p.weight;
      oracle.add_gradients(token, g);
    }
    return g;
  }

  /// Rows f of gate and up, columns f of down, of local expert e.
  void compare(const MoeRun::Matrices& got, Output first, std::int64_t e, std::int64_t ffn,
               const OracleGradients& want) {
    const bool gated = c_.activation == moe::Activation::swiglu;
    for (std::size_t i = 0; i < want.ffn.size(); ++i) {
      for (std::int64_t h = 0; h < c_.hidden; ++h) {
        const std::size_t w = i * at(c_.hidden) + at(h);
        const std::int64_t row = (e * ffn + want.ffn[i]) * c_.hidden + h;
        if (gated) deviations_[first].add(element(got.gate, row), want.gate[w]);
        deviations_[first + 1].add(element(got.up, row), want.up[w]);
        const std::int64_t down = (e * c_.hidden + h) * ffn + want.ffn[i];
        deviations_[first + 2].add(element(got.down, down), want.down[w]);
      }
    }
  }

  void compare_expert_gradients() {
    const std::vector<std::vector<Pair>> pairs = gather_pairs();
    const std::int64_t local = run_.layer().local_experts();
    const std::int64_t n = sampled_ ? std::min(local, kSampleExperts) : local;
    const std::int64_t base = run_.layer().expert_rank() * local;
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t e = i * local / n;
      compare(run_.dexperts(), kDgate, e, c_.ffn, gradients_of(false, base + e, pairs[at(e)]));
    }
  }

  void compare_shared_gradients() {
    if (c_.shared_ffn == 0) return;
    std::vector<Pair> pairs;
    for (const std::int64_t token : run_.tokens()) pairs.push_back({token, 1.0});
    compare(run_.dshared(), kSharedDgate, 0, c_.shared_ffn, gradients_of(true, 0, pairs));
  }

  Mesh& mesh_;
  const MoeRun& run_;
  const moe::LayerConfig& c_;
  const moe::Routing& routing_;
  bool backward_, sampled_;
  std::vector<Chosen> chosen_;
  Deviations deviations_{};
};

/// Sums of products are f32 chains of the widths and, for gradients of weights, of an expert's
/// rows; three follow each other. With bf16, what enters and leaves each product is rounded: three
/// times forward, twice as often back.
double bound(Output output, const MoeRequest& request) {
  const moe::LayerConfig& c = request.config;
  const auto terms =
      static_cast<double>(std::max({c.hidden, c.ffn, c.shared_ffn, request.tokens, c.experts}));
  const double sums = 3 * 0x1p-24 * (64.0 + 4.0 * std::sqrt(terms));
  const double u = c.dtype == DType::f32 ? 0.0 : unit_roundoff(c.dtype);
  if (output == kWeights) return sums;
  return output == kY ? sums + 4 * u : 2 * sums + 8 * u;
}

}  // namespace

CheckReport check_moe(Mesh& mesh, const MoeRun& run, bool backward, bool sampled) {
  const Deviations mine = Checker(mesh, run, backward, sampled).run();
  std::vector<Deviations> ranks(at(mesh.world()));
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(ranks)),
             "bench: result of the check");
  CheckReport report{.lines = {}, .sampled = sampled};
  for (std::size_t o = 0; o < kOutputs; ++o) {
    Deviation worst;
    for (const Deviations& rank : ranks) {
      worst.error = std::max(worst.error, rank[o].error);
      worst.scale = std::max(worst.scale, rank[o].scale);
      worst.elements += rank[o].elements;
    }
    if (worst.elements == 0) continue;  // not of this run
    report.lines.push_back({.name = kNames[o],
                            // Zeros for zeros: no row came to it.
                            .rel_err = worst.error == 0.0 ? 0.0 : worst.error / worst.scale,
                            .bound = bound(static_cast<Output>(o), run.request()),
                            .elements = static_cast<std::int64_t>(worst.elements)});
  }
  return report;
}

}  // namespace annulus::launch
