#include "tests/support/oracle.h"

#include "runtime/base/dtype.h"
#include "tests/support/random.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <type_traits>

namespace annulus::testing {

namespace {

std::int64_t shift_of(CausalAlign align, const OracleProblem& p) {
  return align == CausalAlign::bottom_right ? p.seq_kv - p.seq : 0;
}

std::int64_t document_of(const Mask::Documents& documents, std::int64_t position) {
  std::int64_t end = 0;
  std::int64_t document = 0;
  for (const std::int64_t length : documents.lengths) {
    end += length;
    if (position < end) return document;
    ++document;
  }
  return document;
}

struct TermAllows {
  const OracleProblem& problem;
  std::int64_t i;
  std::int64_t j;

  bool operator()(const Mask::Causal& t) const { return j <= i + shift_of(t.align, problem); }
  bool operator()(const Mask::Window& t) const {
    const std::int64_t center = i + shift_of(t.align, problem);
    return (t.left < 0 || j >= center - t.left) && (t.right < 0 || j <= center + t.right);
  }
  bool operator()(const Mask::Documents& t) const {
    return document_of(t, i) == document_of(t, j) && (!t.causal || j <= i);
  }
  bool operator()(const Mask::Prefix& t) const {
    return j < t.length || j <= i + shift_of(t.align, problem);
  }
  bool operator()(const Mask::Rows& t) const {
    for (const KeyInterval& interval : t.intervals[static_cast<std::size_t>(i)]) {
      if (interval.begin <= j && j < interval.end) return true;
    }
    return false;
  }
  bool operator()(const Mask::Lists& t) const {
    for (const KeyInterval& interval : t.rows->row(i)) {
      if (interval.begin <= j && j < interval.end) return true;
    }
    return false;
  }
  bool operator()(const Mask::Segments& t) const {
    const std::int64_t of_query = t.ids.at(static_cast<std::size_t>(i));
    const std::int64_t of_key =
        (t.ids_kv.empty() ? t.ids : t.ids_kv).at(static_cast<std::size_t>(j));
    return of_query == of_key && of_query >= 0;
  }
};

// Loops as wide as the CPU has them: each sum is added up in its order, and without FMA, so that no
// bit depends on it.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define ANNULUS_WIDE [[gnu::target_clones("avx2", "default")]]
#else
#define ANNULUS_WIDE
#endif

template <typename Real>
[[gnu::always_inline]] inline void add_scaled_one(Real factor, const Real* x, std::int64_t n,
                                                  Real* __restrict y) {
  for (std::int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

/// sums[j] += factors[d] * columns[d][j] for d = 0, 1, ...; a column is `n` apart from the next.
template <typename Real>
[[gnu::always_inline]] inline void add_columns_one(const Real* factors, const Real* columns,
                                                   std::int64_t count, std::int64_t n,
                                                   Real* __restrict sums) {
  std::int64_t d = 0;
  for (; d + 4 <= count; d += 4) {
    const Real* const f = factors + d;
    const Real* const c = columns + d * n;
    for (std::int64_t j = 0; j < n; ++j) {
      Real sum = sums[j];
      sum += f[0] * c[j];
      sum += f[1] * c[n + j];
      sum += f[2] * c[2 * n + j];
      sum += f[3] * c[3 * n + j];
      sums[j] = sum;
    }
  }
  for (; d < count; ++d) add_scaled_one(factors[d], columns + d * n, n, sums);
}

ANNULUS_WIDE void add_scaled(float factor, const float* x, std::int64_t n, float* y) {
  add_scaled_one(factor, x, n, y);
}
ANNULUS_WIDE void add_scaled(double factor, const double* x, std::int64_t n, double* y) {
  add_scaled_one(factor, x, n, y);
}
ANNULUS_WIDE void add_columns(const float* factors, const float* columns, std::int64_t count,
                              std::int64_t n, float* sums) {
  add_columns_one(factors, columns, count, n, sums);
}
ANNULUS_WIDE void add_columns(const double* factors, const double* columns, std::int64_t count,
                              std::int64_t n, double* sums) {
  add_columns_one(factors, columns, count, n, sums);
}

/// One query head and its key/value head, in the precision Real. `Round` is what is done to P, dS
/// and results.
template <typename Real, typename Round>
class DenseHead {
 public:
  using Reals = std::vector<Real>;

  DenseHead(const OracleProblem& problem, const OracleInputs& in, std::int64_t batch,
            std::int64_t head, Round round)
      : p_(problem), round_(round), batch_(batch), head_(head) {
    kv_ = head / (p_.heads / p_.heads_kv);
    q_ = take(in.q, p_.seq, p_.heads, head, p_.head_dim);
    k_ = take(in.k, p_.seq_kv, p_.heads_kv, kv_, p_.head_dim);
    v_ = take(in.v, p_.seq_kv, p_.heads_kv, kv_, p_.head_dim_v);
    kt_ = transposed(k_, p_.head_dim);
    vt_ = transposed(v_, p_.head_dim_v);
    if (!in.dout.empty()) dout_ = take(in.dout, p_.seq, p_.heads, head, p_.head_dim_v);
    dk_.assign(k_.size(), Real(0));
    dv_.assign(v_.size(), Real(0));
  }

  void run(OracleResult& result) {
    for (std::int64_t i = 0; i < p_.seq; ++i) {
      const Real lse = row_probabilities(i);
      result.lse[static_cast<std::size_t>((batch_ * p_.heads + head_) * p_.seq + i)] =
          static_cast<double>(lse);
      const Reals out = row_output();
      put(result.out, out.data(), p_.seq, i, p_.heads, head_, p_.head_dim_v);
      if (!dout_.empty()) row_gradients(i, out, result);
    }
    if (dout_.empty()) return;
    add(result.dk, dk_, p_.head_dim);
    add(result.dv, dv_, p_.head_dim_v);
  }

 private:
  static Real* at(Reals& values, std::int64_t index) { return values.data() + index; }

  Reals take(const std::vector<double>& from, std::int64_t seq, std::int64_t heads,
             std::int64_t head, std::int64_t dim) const {
    Reals to;
    for (std::int64_t s = 0; s < seq; ++s) {
      const double* row = from.data() + ((batch_ * seq + s) * heads + head) * dim;
      for (std::int64_t d = 0; d < dim; ++d) to.push_back(static_cast<Real>(row[d]));
    }
    return to;
  }

  Reals transposed(const Reals& keys, std::int64_t dim) const {
    Reals to(keys.size());
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      for (std::int64_t d = 0; d < dim; ++d) *at(to, d * p_.seq_kv + j) = keys[index(j * dim + d)];
    }
    return to;
  }

  static std::size_t index(std::int64_t i) { return static_cast<std::size_t>(i); }

  /// row . keys[j] for all j.
  Reals products(const Real* row, const Reals& keys_t, std::int64_t dim) const {
    Reals sums(index(p_.seq_kv), Real(0));
    add_columns(row, keys_t.data(), dim, p_.seq_kv, sums.data());
    return sums;
  }

  /// Fills probability_ and slope_; returns the log-sum-exp.
  Real row_probabilities(std::int64_t i) {
    probability_ = products(q_.data() + i * p_.head_dim, kt_, p_.head_dim);
    slope_.assign(index(p_.seq_kv), Real(1));
    Real max = -std::numeric_limits<Real>::infinity();
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      Real& s = probability_[index(j)];
      s *= static_cast<Real>(p_.softmax_scale);
      if (p_.softcap > 0.0) {
        const Real t = std::tanh(s / static_cast<Real>(p_.softcap));
        s = static_cast<Real>(p_.softcap) * t;
        slope_[index(j)] = Real(1) - t * t;
      }
      if (!allowed(p_, i, j)) s = -std::numeric_limits<Real>::infinity();
      max = std::max(max, s);
    }
    if (std::isinf(max) && max < Real(0)) {
      probability_.assign(index(p_.seq_kv), Real(0));
      return max;
    }
    Real sum = 0;
    for (Real& s : probability_) sum += (s = std::exp(s - max));
    for (Real& s : probability_) s = round_(s / sum);
    return max + std::log(sum);
  }

  Reals row_output() const {
    Reals out(index(p_.head_dim_v), Real(0));
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      add_seen(probability_[index(j)], v_.data() + j * p_.head_dim_v, p_.head_dim_v, out.data());
    }
    for (Real& value : out) value = round_(value);
    return out;
  }

  void row_gradients(std::int64_t i, const Reals& out, OracleResult& result) {
    const Real* dout = dout_.data() + i * p_.head_dim_v;
    const Reals dp = products(dout, vt_, p_.head_dim_v);
    Real delta = 0;
    for (std::int64_t d = 0; d < p_.head_dim_v; ++d) delta += dout[d] * out[index(d)];
    Reals dq(index(p_.head_dim), Real(0));
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      const Real p = probability_[index(j)];
      const Real ds = round_(p * (dp[index(j)] - delta) * slope_[index(j)]) *
                      static_cast<Real>(p_.softmax_scale);
      add_seen(p, dout, p_.head_dim_v, at(dv_, j * p_.head_dim_v));
      add_seen(ds, q_.data() + i * p_.head_dim, p_.head_dim, at(dk_, j * p_.head_dim));
      add_seen(ds, k_.data() + j * p_.head_dim, p_.head_dim, dq.data());
    }
    for (Real& value : dq) value = round_(value);
    put(result.dq, dq.data(), p_.seq, i, p_.heads, head_, p_.head_dim);
  }

  /// Nothing where the factor is zero: what nobody sees may be NaN.
  static void add_seen(Real factor, const Real* x, std::int64_t n, Real* y) {
    if (factor != Real(0)) add_scaled(factor, x, n, y);
  }

  void put(std::vector<double>& to, const Real* row, std::int64_t seq, std::int64_t s,
           std::int64_t heads, std::int64_t head, std::int64_t dim) const {
    for (std::int64_t d = 0; d < dim; ++d) {
      to[index(((batch_ * seq + s) * heads + head) * dim + d)] = static_cast<double>(row[d]);
    }
  }

  /// This query head's part of a key gradient.
  void add(std::vector<double>& to, const Reals& part, std::int64_t dim) const {
    for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
      for (std::int64_t d = 0; d < dim; ++d) {
        to[index(((batch_ * p_.seq_kv + j) * p_.heads_kv + kv_) * dim + d)] +=
            static_cast<double>(round_(part[index(j * dim + d)]));
      }
    }
  }

  const OracleProblem& p_;
  Round round_;
  std::int64_t batch_, head_, kv_ = 0;
  Reals q_, k_, v_, kt_, vt_, dout_, dk_, dv_, probability_, slope_;
};

template <typename Real, typename Round>
OracleResult dense_attention(const OracleProblem& p, const OracleInputs& in, Round round) {
  OracleResult result;
  const std::int64_t rows = p.batch * p.heads * p.seq;
  result.out.assign(static_cast<std::size_t>(rows * p.head_dim_v), 0.0);
  result.lse.assign(static_cast<std::size_t>(rows), 0.0);
  if (!in.dout.empty()) {
    result.dq.assign(in.q.size(), 0.0);
    result.dk.assign(in.k.size(), 0.0);
    result.dv.assign(in.v.size(), 0.0);
  }
  for (std::int64_t b = 0; b < p.batch; ++b) {
    for (std::int64_t h = 0; h < p.heads; ++h) {
      DenseHead<Real, Round>(p, in, b, h, round).run(result);
    }
  }
  return result;
}

}  // namespace

bool allowed(const OracleProblem& problem, std::int64_t i, std::int64_t j) {
  return std::all_of(problem.terms.begin(), problem.terms.end(), [&](const Mask::Term& term) {
    return std::visit(TermAllows{problem, i, j}, term);
  });
}

OracleInputs random_inputs(const OracleProblem& p, std::uint64_t seed, double scale) {
  const auto make = [&](std::int64_t n, std::uint64_t salt, double by) {
    std::vector<double> values = random_normal(n, seed * 4 + salt, by);
    for (double& value : values) value = rounded_to(p.dtype, value);
    return values;
  };
  return {make(p.batch * p.seq * p.heads * p.head_dim, 0, scale),
          make(p.batch * p.seq_kv * p.heads_kv * p.head_dim, 1, scale),
          make(p.batch * p.seq_kv * p.heads_kv * p.head_dim_v, 2, 1.0),
          make(p.batch * p.seq * p.heads * p.head_dim_v, 3, 1.0)};
}

OracleResult oracle_attention(const OracleProblem& problem, const OracleInputs& inputs) {
  return dense_attention<double>(problem, inputs, [](double value) { return value; });
}

OracleResult naive_attention(const OracleProblem& problem, const OracleInputs& inputs) {
  const DType dtype = problem.dtype;
  if (dtype == DType::f32) {
    return dense_attention<float>(problem, inputs, [](float value) { return value; });
  }
  return dense_attention<float>(problem, inputs, [dtype](float value) {
    return static_cast<float>(rounded_to(dtype, static_cast<double>(value)));
  });
}

}  // namespace annulus::testing
