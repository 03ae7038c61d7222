#pragma once

#include "tests/support/oracle_rounding.h"

#include <cmath>
#include <cstdint>

// The oracle (oracle.h) in steps whose elements do not depend on each other, so that a GPU can take
// a thread for each: tests/gpu/device_oracle. A loop over the elements is the same on the host.
namespace annulus::testing {

enum class OracleStep { scores, rows, out, delta, ds, dq, dk, dv };

/// Arrays are compact: q, out, dq, dout [batch][seq][heads][dim or dim_v]; k, v, dk, dv
/// [batch][seq_kv][heads_kv][...]; lse, delta [batch][heads][seq]; p, ds
/// [batch][heads][seq][seq_kv]; allowed [seq][seq_kv].
template <typename Real>
struct OracleSteps {
  std::int64_t batch, seq, seq_kv, heads, heads_kv, dim, dim_v;
  Real scale, softcap;  ///< softcap 0: none
  OracleRounding rounding;
  const Real *q, *k, *v, *dout;
  const std::uint8_t* allowed;
  Real *p, *ds, *delta;
  Real *out, *lse, *dq, *dk, *dv;

  /// Elements of a step.
  ANNULUS_ORACLE std::int64_t count(OracleStep step) const {
    switch (step) {
      case OracleStep::scores:
      case OracleStep::ds:
        return batch * heads * seq * seq_kv;
      case OracleStep::rows:
      case OracleStep::delta:
        return batch * heads * seq;
      case OracleStep::out:
        return batch * seq * heads * dim_v;
      case OracleStep::dq:
        return batch * seq * heads * dim;
      case OracleStep::dk:
        return batch * seq_kv * heads_kv * dim;
      case OracleStep::dv:
        return batch * seq_kv * heads_kv * dim_v;
    }
    return 0;
  }

  /// Element `n` of a step, after all elements of the steps before.
  ANNULUS_ORACLE void run(OracleStep step, std::int64_t n) const {
    switch (step) {
      case OracleStep::scores:
        p[n] = allowed[n % (seq * seq_kv)] != 0 ? score(pair_of(n)).value : -INFINITY;
        return;
      case OracleStep::rows:
        return row(n);
      case OracleStep::out:
        out[n] = output(token_of(n, seq, heads, dim_v));
        return;
      case OracleStep::delta:
        delta[n] = row_delta(n);
        return;
      case OracleStep::ds:
        ds[n] = slope(n);
        return;
      case OracleStep::dq:
        dq[n] = query_gradient(token_of(n, seq, heads, dim));
        return;
      case OracleStep::dk:
        dk[n] = key_gradient(ds, q, token_of(n, seq_kv, heads_kv, dim), dim);
        return;
      case OracleStep::dv:
        dv[n] = key_gradient(p, dout, token_of(n, seq_kv, heads_kv, dim_v), dim_v);
        return;
    }
  }

 private:
  struct Pair {
    std::int64_t b, h, i, j;
  };
  struct Place {
    std::int64_t b, token, head, d;
  };
  struct Score {
    Real value, slope;
  };

  /// Of [batch][heads][seq][seq_kv].
  ANNULUS_ORACLE Pair pair_of(std::int64_t n) const {
    const std::int64_t row = n / seq_kv;
    return {row / seq / heads, row / seq % heads, row % seq, n % seq_kv};
  }
  /// Of [batch][tokens][count][width].
  ANNULUS_ORACLE static Place token_of(std::int64_t n, std::int64_t tokens, std::int64_t count,
                                       std::int64_t width) {
    const std::int64_t head = n / width;
    return {head / count / tokens, head / count % tokens, head % count, n % width};
  }
  ANNULUS_ORACLE const Real* query(const Real* of, std::int64_t b, std::int64_t i, std::int64_t h,
                                   std::int64_t width) const {
    return of + ((b * seq + i) * heads + h) * width;
  }
  ANNULUS_ORACLE const Real* key(const Real* of, std::int64_t b, std::int64_t j, std::int64_t kv,
                                 std::int64_t width) const {
    return of + ((b * seq_kv + j) * heads_kv + kv) * width;
  }
  ANNULUS_ORACLE std::int64_t kv_of(std::int64_t h) const { return h / (heads / heads_kv); }
  ANNULUS_ORACLE std::int64_t row_of(std::int64_t b, std::int64_t h, std::int64_t i) const {
    return (b * heads + h) * seq + i;
  }
  ANNULUS_ORACLE Real rounded(Real value) const { return rounded_oracle(rounding, value); }

  ANNULUS_ORACLE static Real dot(const Real* a, const Real* b, std::int64_t width) {
    Real sum = 0;
    for (std::int64_t d = 0; d < width; ++d) sum += a[d] * b[d];
    return sum;
  }

  ANNULUS_ORACLE Score score(const Pair& at) const {
    const Real s =
        dot(query(q, at.b, at.i, at.h, dim), key(k, at.b, at.j, kv_of(at.h), dim), dim) * scale;
    if (softcap == Real(0)) return {s, Real(1)};
    const Real t = std::tanh(s / softcap);
    return {softcap * t, Real(1) - t * t};
  }

  /// Scores become probabilities, and give lse.
  ANNULUS_ORACLE void row(std::int64_t n) const {
    Real* s = p + n * seq_kv;
    Real max = -INFINITY;
    for (std::int64_t j = 0; j < seq_kv; ++j) max = s[j] > max ? s[j] : max;
    const bool unseen = max == -static_cast<Real>(INFINITY);
    Real sum = 0;
    for (std::int64_t j = 0; j < seq_kv; ++j)
      sum += (s[j] = unseen ? Real(0) : std::exp(s[j] - max));
    for (std::int64_t j = 0; j < seq_kv; ++j) s[j] = unseen ? Real(0) : rounded(s[j] / sum);
    lse[n] = unseen ? max : max + std::log(sum);
  }

  ANNULUS_ORACLE Real output(const Place& at) const {
    const Real* weights = p + row_of(at.b, at.head, at.token) * seq_kv;
    Real sum = 0;
    for (std::int64_t j = 0; j < seq_kv; ++j) {
      sum += weights[j] * key(v, at.b, j, kv_of(at.head), dim_v)[at.d];
    }
    return rounded(sum);
  }

  ANNULUS_ORACLE Real row_delta(std::int64_t n) const {
    const std::int64_t b = n / seq / heads;
    const std::int64_t h = n / seq % heads;
    return dot(query(dout, b, n % seq, h, dim_v), query(out, b, n % seq, h, dim_v), dim_v);
  }

  /// By the raw score, times the scale.
  ANNULUS_ORACLE Real slope(std::int64_t n) const {
    if (p[n] == Real(0)) return 0;
    const Pair at = pair_of(n);
    const Real dp =
        dot(query(dout, at.b, at.i, at.h, dim_v), key(v, at.b, at.j, kv_of(at.h), dim_v), dim_v);
    return rounded(p[n] * (dp - delta[n / seq_kv]) * score(at).slope) * scale;
  }

  ANNULUS_ORACLE Real query_gradient(const Place& at) const {
    const Real* slopes = ds + row_of(at.b, at.head, at.token) * seq_kv;
    Real sum = 0;
    for (std::int64_t j = 0; j < seq_kv; ++j) {
      sum += slopes[j] * key(k, at.b, j, kv_of(at.head), dim)[at.d];
    }
    return rounded(sum);
  }

  /// weights^T rows, of all query heads of a key/value head.
  ANNULUS_ORACLE Real key_gradient(const Real* weights, const Real* rows, const Place& at,
                                   std::int64_t width) const {
    const std::int64_t group = heads / heads_kv;
    double all = 0;
    for (std::int64_t h = at.head * group; h < (at.head + 1) * group; ++h) {
      Real sum = 0;
      for (std::int64_t i = 0; i < seq; ++i) {
        sum +=
            weights[row_of(at.b, h, i) * seq_kv + at.token] * query(rows, at.b, i, h, width)[at.d];
      }
      all += static_cast<double>(rounded(sum));
    }
    return static_cast<Real>(all);
  }
};

}  // namespace annulus::testing
