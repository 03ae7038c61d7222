#include "tests/support/rounding_sizes.h"

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace annulus::testing {
namespace {

double square(double x) { return x * x; }

/// Of one rounding, squared: half a unit of the last place of a mantissa of 1, uniform.
class Rounding {
 public:
  explicit Rounding(DType dtype) {
    half_ = dtype == DType::bf16 ? 0x1p-8 : dtype == DType::f16 ? 0x1p-11 : 0x1p-24;
    smallest_ = dtype == DType::f16 ? 0x1p-14 : 0x1p-126;  // below it units stay as they are
  }
  double of(double x) const { return square(half_ * std::max(std::abs(x), smallest_)) / 3.0; }

 private:
  double half_, smallest_;
};

class Sizes {
 public:
  Sizes(const OracleProblem& p, const OracleInputs& in, const OracleResult& truth)
      : p_(p), in_(in), truth_(truth), rounding_(p.dtype) {
    for (const auto& [to, of] : tensors()) *to = std::vector<double>(of->size(), 0.0);
  }

  OracleResult find() {
    for (std::int64_t b = 0; b < p_.batch; ++b) {
      for (std::int64_t i = 0; i < p_.seq; ++i) {
        seen_.clear();
        for (std::int64_t j = 0; j < p_.seq_kv; ++j) {
          if (allowed(p_, i, j)) seen_.push_back(j);
        }
        for (std::int64_t h = 0; h < p_.heads; ++h) add_row(b, i, h);
      }
    }
    for (const auto& [to, of] : tensors()) {
      for (std::size_t e = 0; e < to->size(); ++e) {
        (*to)[e] = std::sqrt((*to)[e] + rounding_.of((*of)[e]));
      }
    }
    return std::move(sizes_);
  }

 private:
  struct Tensor {
    std::vector<double>* sizes;
    const std::vector<double>* truth;
  };
  std::vector<Tensor> tensors() {
    return {{&sizes_.out, &truth_.out},
            {&sizes_.dq, &truth_.dq},
            {&sizes_.dk, &truth_.dk},
            {&sizes_.dv, &truth_.dv}};
  }

  static double dot(const double* x, const double* y, std::int64_t n) {
    double sum = 0.0;
    for (std::int64_t d = 0; d < n; ++d) sum += x[d] * y[d];
    return sum;
  }

  /// One query row of one head.
  void add_row(std::int64_t b, std::int64_t i, std::int64_t h) {
    const std::int64_t group = h / (p_.heads / p_.heads_kv);
    const std::int64_t row = (b * p_.seq + i) * p_.heads + h;
    const auto key = [&](std::int64_t j) { return (b * p_.seq_kv + j) * p_.heads_kv + group; };
    const double lse = truth_.lse[static_cast<std::size_t>((b * p_.heads + h) * p_.seq + i)];
    const double* q = in_.q.data() + row * p_.head_dim;
    const double* dout = in_.dout.data() + row * p_.head_dim_v;
    const double* out = truth_.out.data() + row * p_.head_dim_v;
    const double delta = dot(dout, out, p_.head_dim_v);
    double delta_size = 0.0;  // squared, as all sizes until the end
    for (std::int64_t d = 0; d < p_.head_dim_v; ++d) {
      delta_size += square(dout[d]) * rounding_.of(out[d]);
    }
    pairs_.clear();
    for (const std::int64_t j : seen_) {
      double score = dot(q, in_.k.data() + key(j) * p_.head_dim, p_.head_dim) * p_.softmax_scale;
      double slope = 1.0;
      if (p_.softcap > 0.0) {
        const double t = std::tanh(score / p_.softcap);
        score = p_.softcap * t;
        slope = 1.0 - square(t);
      }
      const double dp = dot(dout, in_.v.data() + key(j) * p_.head_dim_v, p_.head_dim_v);
      const double probability = std::exp(score - lse);
      pairs_.push_back({key(j), probability, slope * p_.softmax_scale, dp - delta});
      delta_size += square(dp) * rounding_.of(probability);  // all of a row's output at once
    }
    add_output(row, dout);
    add_gradients(row, q, delta_size);
  }

  void add_output(std::int64_t row, const double* dout) {
    double* to = sizes_.out.data() + row * p_.head_dim_v;
    for (const Pair& pair : pairs_) {
      const double of = rounding_.of(pair.probability);
      const double* v = in_.v.data() + pair.key * p_.head_dim_v;
      double* dv = sizes_.dv.data() + pair.key * p_.head_dim_v;
      for (std::int64_t d = 0; d < p_.head_dim_v; ++d) {
        to[d] += of * square(v[d]);
        dv[d] += of * square(dout[d]);
      }
    }
  }

  /// dS = P (dP - delta) slope: rounded itself, and off by delta's error for all keys alike.
  void add_gradients(std::int64_t row, const double* q, double delta_size) {
    double* dq = sizes_.dq.data() + row * p_.head_dim;
    std::vector<double> mean(static_cast<std::size_t>(p_.head_dim), 0.0);
    for (const Pair& pair : pairs_) {
      const double weight = pair.probability * pair.slope;
      const double of =
          square(p_.softmax_scale) * rounding_.of(weight * pair.difference / p_.softmax_scale);
      const double* k = in_.k.data() + pair.key * p_.head_dim;
      double* dk = sizes_.dk.data() + pair.key * p_.head_dim;
      for (std::int64_t d = 0; d < p_.head_dim; ++d) {
        dk[d] += square(q[d]) * (of + square(weight) * delta_size);
        dq[d] += square(k[d]) * of;
        mean[static_cast<std::size_t>(d)] += weight * k[d];
      }
    }
    for (std::int64_t d = 0; d < p_.head_dim; ++d) {
      dq[d] += square(mean[static_cast<std::size_t>(d)]) * delta_size;
    }
  }

  struct Pair {
    std::int64_t key;  ///< row of k and v
    double probability;
    double slope;       ///< of the softcap, times softmax_scale
    double difference;  ///< dP - delta
  };

  const OracleProblem& p_;
  const OracleInputs& in_;
  const OracleResult& truth_;
  Rounding rounding_;
  std::vector<std::int64_t> seen_;
  std::vector<Pair> pairs_;
  OracleResult sizes_;
};

}  // namespace

OracleResult rounding_sizes(const OracleProblem& problem, const OracleInputs& inputs,
                            const OracleResult& truth) {
  return Sizes(problem, inputs, truth).find();
}

}  // namespace annulus::testing
