#include "tests/moe_layer/layer_oracle.h"

#include "runtime/base/dtype.h"
#include "tests/moe/oracle.h"
#include "tests/support/random.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <random>
#include <span>

namespace annulus::testing {
namespace {

using moe::Activation;
using moe::LayerConfig;
using moe::Routing;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Values stored(DType dtype, Values values) {
  for (double& value : values) value = rounded_to(dtype, value);
  return values;
}

/// sum over i of a[i] * b[i]
double dot(const double* a, const double* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// One expert and one token.
class Mlp {
 public:
  Mlp(const LayerConfig& c, std::int64_t ffn, const OracleExperts& w, std::int64_t expert)
      : gated_(c.activation == Activation::swiglu), h_(c.hidden), f_(ffn), w_(w), e_(expert) {}

  Values forward(const double* x) {
    g_.assign(at(f_), 0);
    u_ = a_ = g_;
    for (std::int64_t f = 0; f < f_; ++f) {
      u_[at(f)] = dot(x, w_.up.data() + row(f), h_);
      if (gated_) g_[at(f)] = dot(x, w_.gate.data() + row(f), h_);
      a_[at(f)] = gated_ ? g_[at(f)] * s(g_[at(f)]) * u_[at(f)] : u_[at(f)] * phi(u_[at(f)]);
    }
    Values y(at(h_));
    for (std::int64_t h = 0; h < h_; ++h) y[at(h)] = dot(a_.data(), w_.down.data() + down(h), f_);
    return y;
  }

  /// After forward: adds to the gradients for dy.
  void backward(const double* x, const Values& dy, double* dx, OracleExperts& d) const {
    for (std::int64_t f = 0; f < f_; ++f) {
      double da = 0;
      for (std::int64_t h = 0; h < h_; ++h) {
        da += dy[at(h)] * w_.down[at(down(h) + f)];
        d.down[at(down(h) + f)] += dy[at(h)] * a_[at(f)];
      }
      const double g = g_[at(f)], u = u_[at(f)];
      const double du = gated_ ? da * g * s(g) : da * (phi(u) + u * density(u));
      const double dg = gated_ ? da * u * s(g) * (1 + g * (1 - s(g))) : 0;
      for (std::int64_t h = 0; h < h_; ++h) {
        d.up[at(row(f) + h)] += du * x[h];
        dx[h] += du * w_.up[at(row(f) + h)];
        if (!gated_) continue;
        d.gate[at(row(f) + h)] += dg * x[h];
        dx[h] += dg * w_.gate[at(row(f) + h)];
      }
    }
  }

 private:
  std::int64_t row(std::int64_t f) const { return (e_ * f_ + f) * h_; }
  std::int64_t down(std::int64_t h) const { return (e_ * h_ + h) * f_; }
  static double s(double v) { return 1 / (1 + std::exp(-v)); }
  static double phi(double v) { return 0.5 * std::erfc(-v / std::sqrt(2.0)); }
  static double density(double v) { return std::exp(-v * v / 2) / std::sqrt(2 * std::acos(-1.0)); }

  bool gated_;
  std::int64_t h_, f_;
  const OracleExperts& w_;
  std::int64_t e_;
  Values g_, u_, a_;
};

OracleExperts random_experts(const LayerConfig& c, std::int64_t experts, std::int64_t ffn,
                             std::uint64_t seed) {
  const double in = 1.0 / std::sqrt(static_cast<double>(c.hidden));
  const double out = ffn > 0 ? 1.0 / std::sqrt(static_cast<double>(ffn)) : 0;
  const std::int64_t n = experts * ffn * c.hidden;
  return {stored(c.dtype, random_normal(n, seed, in)),
          stored(c.dtype, random_normal(n, seed + 1, in)),
          stored(c.dtype, random_normal(n, seed + 2, out))};
}

OracleExperts zeros(const OracleExperts& like) {
  return {Values(like.gate.size()), Values(like.up.size()), Values(like.down.size())};
}

/// Different experts for a token, some pairs without one.
Routing random_routing(const LayerConfig& c, std::int64_t tokens, std::uint64_t seed) {
  std::mt19937_64 generator(seed);
  Routing r{.tokens = tokens, .k = c.k, .experts = c.experts};
  std::vector<std::int32_t> order(at(c.experts));
  for (std::size_t e = 0; e < order.size(); ++e) order[e] = static_cast<std::int32_t>(e);
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::ranges::shuffle(order, generator);
    for (std::int64_t slot = 0; slot < c.k; ++slot) {
      const bool none = random_between(generator, 0, 6) == 0;
      r.indices.push_back(none ? -1 : order[at(slot)]);
      r.weights.push_back(none ? 0.0F
                               : std::uniform_real_distribution<float>(0.1F, 1.0F)(generator));
    }
  }
  return r;
}

/// What x is multiplied by before the router sees it. tests/moe/balance_test.cpp holds the noise.
Values noise_of(const LayerCase& l, std::int64_t token) {
  std::vector<float> ones(at(l.config.hidden), 1.0F);
  moe::jitter(ones, l.config.hidden, static_cast<float>(l.config.jitter), l.noise_seed, token);
  return Values(ones.begin(), ones.end());
}

Values seen_of(const LayerCase& l, std::int64_t token) {
  const double* x = l.x.data() + token * l.config.hidden;
  Values seen(x, x + l.config.hidden);
  if (l.config.jitter == 0) return seen;
  const Values noise = noise_of(l, token);
  for (std::size_t i = 0; i < seen.size(); ++i) seen[i] *= noise[i];
  return stored(l.config.dtype, seen);
}

Values logits_of(const LayerCase& l, std::int64_t token) {
  Values z;
  const Values seen = seen_of(l, token);
  for (std::int64_t e = 0; e < l.config.experts; ++e) {
    z.push_back(dot(seen.data(), l.router.data() + e * l.config.hidden, l.config.hidden));
  }
  return z;
}

std::vector<std::int64_t> chosen_of(const Routing& r, std::int64_t token) {
  std::vector<std::int64_t> chosen;
  for (std::int64_t s = 0; s < r.k; ++s) chosen.push_back(r.indices[at(token * r.k + s)]);
  return chosen;
}

std::size_t set_of(const LayerCase& l, std::int64_t token) {
  return l.loss_set.empty() ? 0 : at(l.loss_set[at(token)]);
}

/// Of each balancing loss: selections by the plain k largest, and tokens.
struct LossCounts {
  std::vector<std::vector<std::int64_t>> selections;
  std::vector<std::int64_t> tokens;
};

LossCounts plain_selections(const LayerCase& l, const std::vector<Values>& logits) {
  const std::size_t sets = l.loss_set.empty() ? 1 : at(std::ranges::max(l.loss_set) + 1);
  LossCounts n{{sets, std::vector<std::int64_t>(at(l.config.experts))},
               std::vector<std::int64_t>(sets)};
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    ++n.tokens[set_of(l, t)];
    for (const std::int64_t e : moe::testing::largest(logits[at(t)], l.config.k)) {
      ++n.selections[set_of(l, t)][at(e)];
    }
  }
  return n;
}

/// A token's part of the balancing loss that it is in.
double balance_of(const LayerCase& l, std::int64_t t, const Values& z, const LossCounts& n) {
  const Values q = moe::testing::oracle_shares(*l.config.router, z);
  const auto tokens = static_cast<double>(n.tokens[set_of(l, t)]);
  const std::vector<std::int64_t>& selections = n.selections[set_of(l, t)];
  double sum = 0;
  for (std::size_t e = 0; e < q.size(); ++e) {
    sum += l.config.balance_alpha * static_cast<double>(l.config.experts) /
           (static_cast<double>(l.config.k) * tokens * tokens) *
           static_cast<double>(selections[e]) * q[e];
  }
  if (l.config.balance_over != moe::BalanceOver::sequences) return sum;
  return sum / static_cast<double>(std::ranges::count_if(n.tokens, [](auto m) { return m > 0; }));
}

double z_of(const LayerCase& l, const Values& z) {
  return l.config.z_beta / static_cast<double>(l.tokens) * std::pow(moe::testing::oracle_lse(z), 2);
}

bool has_losses(const LayerConfig& c) { return c.balance_alpha != 0 || c.z_beta != 0; }

std::vector<Values> all_logits(const LayerCase& l) {
  std::vector<Values> logits;
  for (std::int64_t t = 0; t < l.tokens; ++t) logits.push_back(logits_of(l, t));
  return logits;
}

Values weights_of(const LayerCase& l, const Routing& r, std::int64_t token) {
  if (l.config.router) {
    return moe::testing::oracle_weights(*l.config.router, logits_of(l, token), chosen_of(r, token));
  }
  const auto* first = r.weights.data() + token * r.k;
  return Values(first, first + r.k);
}

/// Into dx and the router's gradient, through central differences of the weights and losses.
void router_backward(const LayerCase& l, const Routing& r, LayerResult& out) {
  constexpr double kStep = 1e-5;
  std::vector<Values> logits = all_logits(l);
  const auto selections = plain_selections(l, logits);
  const std::int64_t h = l.config.hidden;
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    const auto chosen = chosen_of(r, t);
    if (has_losses(l.config)) {
      out.balance_loss += balance_of(l, t, logits[at(t)], selections);
      out.z_loss += z_of(l, logits[at(t)]);
    }
    const Values noise = noise_of(l, t), seen = seen_of(l, t);
    for (std::int64_t e = 0; e < l.config.experts; ++e) {
      double dz = 0;
      for (const double sign : {1.0, -1.0}) {
        logits[at(t)][at(e)] += sign * kStep;
        const Values w = moe::testing::oracle_weights(*l.config.router, logits[at(t)], chosen);
        double value = dot(w.data(), out.dweights.data() + t * r.k, r.k);
        if (has_losses(l.config)) {
          value += balance_of(l, t, logits[at(t)], selections) + z_of(l, logits[at(t)]);
        }
        dz += sign * value / (2 * kStep);
        logits[at(t)][at(e)] -= sign * kStep;
      }
      for (std::int64_t i = 0; i < h; ++i) {
        out.dx[at(t * h + i)] += dz * l.router[at(e * h + i)] * noise[at(i)];
        out.router[at(e * h + i)] += dz * seen[at(i)];
      }
    }
  }
}

}  // namespace

std::string LayerCase::describe() const {
  return "seed " + std::to_string(seed) + ": " + std::to_string(tokens) + " tokens, hidden " +
         std::to_string(config.hidden) + ", ffn " + std::to_string(config.ffn) + ", experts " +
         std::to_string(config.experts) + ", k " + std::to_string(config.k) + ", shared " +
         std::to_string(config.shared_ffn) + ", " + std::string(name_of(config.dtype)) +
         (config.router ? ", router" : ", given routing");
}

LayerCase random_layer(std::uint64_t seed, const LayerConfig& config, std::int64_t tokens) {
  LayerCase l{.seed = seed, .config = config, .tokens = tokens};
  l.x = stored(config.dtype, random_normal(tokens * config.hidden, seed));
  l.dy = stored(config.dtype, random_normal(tokens * config.hidden, seed + 1));
  l.experts = random_experts(config, config.experts, config.ffn, seed + 2);
  l.shared = random_experts(config, 1, config.shared_ffn, seed + 5);
  if (config.router) {
    l.router = stored(config.dtype, random_normal(config.experts * config.hidden, seed + 8,
                                                  1.0 / std::sqrt(config.hidden)));
    if (config.router->score == moe::Score::sigmoid) {
      const Values bias = random_normal(config.experts, seed + 9, 0.1);
      l.bias.assign(bias.begin(), bias.end());
    }
  } else {
    l.routing = random_routing(config, tokens, seed + 10);
  }
  return l;
}

Routing oracle_routing(const LayerCase& l, double* gap) {
  if (!l.config.router) return l.routing;
  Routing r{.tokens = l.tokens, .k = l.config.k, .experts = l.config.experts};
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    const auto token = moe::testing::oracle_token(*l.config.router, logits_of(l, t), l.bias);
    if (gap != nullptr) *gap = std::min(*gap, token.gap);
    for (std::size_t s = 0; s < token.chosen.size(); ++s) {
      r.indices.push_back(static_cast<std::int32_t>(token.chosen[s]));
      r.weights.push_back(static_cast<float>(token.weights[s]));
    }
  }
  return r;
}

Routing oracle_kept(const LayerCase& l, const Routing& r,
                    const std::vector<std::int64_t>& tokens_by_rank) {
  Routing kept = r;
  std::int64_t first = 0;
  for (const std::int64_t tokens : tokens_by_rank) {
    const std::int64_t pairs = tokens * r.k;
    const auto most = static_cast<std::size_t>(std::ceil(
        static_cast<double>(pairs) * l.config.capacity.factor / static_cast<double>(r.experts)));
    for (std::int32_t e = 0; e < r.experts; ++e) {
      std::vector<std::size_t> own;
      for (std::size_t i = at(first); i < at(first + pairs); ++i) {
        if (r.indices[i] == e) own.push_back(i);
      }
      if (l.config.capacity.policy == moe::DropPolicy::probability) {
        std::ranges::stable_sort(own, std::greater<>(),
                                 [&](std::size_t i) { return r.weights[i]; });
      }
      for (std::size_t i = most; i < own.size(); ++i) {
        kept.indices[own[i]] = -1;
        kept.weights[own[i]] = 0.0F;
      }
    }
    first += pairs;
  }
  return kept;
}

LayerResult oracle_layer(const LayerCase& l, const Routing& r, const Routing* kept) {
  const std::int64_t h = l.config.hidden;
  LayerResult out{.y = Values(l.x.size()),
                  .dx = Values(l.x.size()),
                  .experts = zeros(l.experts),
                  .shared = zeros(l.shared),
                  .router = Values(l.router.size()),
                  .dweights = Values(r.indices.size())};
  const auto add = [&](std::int64_t t, std::int64_t ffn, const OracleExperts& weights,
                       std::int64_t expert, double w, OracleExperts& gradient) {
    const double* x = l.x.data() + t * h;
    Mlp mlp(l.config, ffn, weights, expert);
    const Values y = mlp.forward(x);
    Values dy(l.dy.begin() + t * h, l.dy.begin() + (t + 1) * h);
    const double inner = dot(dy.data(), y.data(), h);
    for (double& value : dy) value *= w;
    mlp.backward(x, dy, out.dx.data() + t * h, gradient);
    for (std::int64_t i = 0; i < h; ++i) out.y[at(t * h + i)] += w * y[at(i)];
    return inner;
  };
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    const Values w = weights_of(l, r, t);
    for (std::int64_t s = 0; s < r.k; ++s) {
      const std::int32_t e = (kept == nullptr ? r : *kept).indices[at(t * r.k + s)];
      if (e < 0) continue;
      out.dweights[at(t * r.k + s)] = add(t, l.config.ffn, l.experts, e, w[at(s)], out.experts);
    }
    if (l.config.shared_ffn > 0) add(t, l.config.shared_ffn, l.shared, 0, 1.0, out.shared);
  }
  if (l.config.router) router_backward(l, r, out);
  return out;
}

double oracle_loss(const LayerCase& l, const Routing& r) {
  const std::int64_t h = l.config.hidden;
  double sum = 0;
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    const double* x = l.x.data() + t * h;
    const Values w = weights_of(l, r, t);
    for (std::int64_t s = 0; s < r.k; ++s) {
      const std::int32_t e = r.indices[at(t * r.k + s)];
      if (e < 0) continue;
      const Values y = Mlp(l.config, l.config.ffn, l.experts, e).forward(x);
      sum += w[at(s)] * dot(l.dy.data() + t * h, y.data(), h);
    }
    if (l.config.shared_ffn == 0) continue;
    const Values y = Mlp(l.config, l.config.shared_ffn, l.shared, 0).forward(x);
    sum += dot(l.dy.data() + t * h, y.data(), h);
  }
  if (!has_losses(l.config)) return sum;
  const auto logits = all_logits(l);
  const auto selections = plain_selections(l, logits);
  for (std::int64_t t = 0; t < l.tokens; ++t) {
    sum += balance_of(l, t, logits[at(t)], selections) + z_of(l, logits[at(t)]);
  }
  return sum;
}

}  // namespace annulus::testing
