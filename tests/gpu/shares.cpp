#include "tests/gpu/shares.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

namespace annulus::testing {

namespace {

double largest(const std::vector<double>& values) {
  double worst = 0.0;
  for (const double x : values) worst = std::isfinite(x) ? std::max(worst, std::abs(x)) : worst;
  return worst;
}

/// Infinities must agree, a NaN is infinitely far.
double max_error(const std::vector<double>& a, const std::vector<double>& b) {
  double worst = a.size() == b.size() ? 0.0 : HUGE_VAL;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    if (a[i] == b[i]) continue;
    const double error = std::abs(a[i] - b[i]);
    worst = std::isnan(error) ? HUGE_VAL : std::max(worst, error);
  }
  return worst;
}

/// Error over bound: twice the naive formula's error, what f32 logits and lse leave unknown, and a
/// little for what the naive formula gets exact by luck. ex2.approx and tensor-core sums cost a few
/// units more than libm.
double share_of_bound(const std::vector<double>& actual, const std::vector<double>& truth,
                      const std::vector<double>& naive, double lse, double slack) {
  const double unknown = std::max(8.0, 4.0 * lse) * 0x1p-23;
  const double bound = 2.0 * max_error(naive, truth) + unknown * largest(truth) + slack;
  return max_error(actual, truth) / bound;
}

}  // namespace

Shares shares_of(const OracleResult& actual, const OracleResult& truth, const OracleResult& naive) {
  const double lse = largest(truth.lse);
  return {share_of_bound(actual.out, truth.out, naive.out, lse, 1e-6),
          share_of_bound(actual.lse, truth.lse, naive.lse, 4.0, 4e-6),
          share_of_bound(actual.dq, truth.dq, naive.dq, lse, 8e-6),
          share_of_bound(actual.dk, truth.dk, naive.dk, lse, 8e-6),
          share_of_bound(actual.dv, truth.dv, naive.dv, lse, 1e-6)};
}

bool same_bits(const OracleResult& a, const OracleResult& b) {
  return max_error(a.out, b.out) == 0.0 && max_error(a.lse, b.lse) == 0.0 &&
         max_error(a.dq, b.dq) == 0.0 && max_error(a.dk, b.dk) == 0.0 &&
         max_error(a.dv, b.dv) == 0.0;
}

std::string differences(const OracleResult& a, const OracleResult& b) {
  std::string text;
  const auto compare = [&](const char* name, const std::vector<double>& x,
                           const std::vector<double>& y) {
    std::int64_t count = 0;
    std::size_t first = 0;
    for (std::size_t i = x.size(); i-- > 0;) {
      if (x[i] == y[i] || (std::isnan(x[i]) && std::isnan(y[i]))) continue;
      ++count;
      first = i;
    }
    if (count == 0) return;
    std::array<char, 96> line{};
    std::snprintf(line.data(), line.size(), " %s: %lld of %zu from %zu, by %.3g", name,
                  static_cast<long long>(count), x.size(), first, max_error(x, y));
    text += line.data();
  };
  compare("out", a.out, b.out);
  compare("lse", a.lse, b.lse);
  compare("dq", a.dq, b.dq);
  compare("dk", a.dk, b.dk);
  compare("dv", a.dv, b.dv);
  return text;
}

double Shares::worst() const { return std::max({out, lse, dq, dk, dv}); }

}  // namespace annulus::testing
