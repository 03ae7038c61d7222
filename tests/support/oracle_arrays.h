#pragma once

#include "tests/support/oracle.h"
#include "tests/support/oracle_steps.h"

#include <cstddef>
#include <cstdint>
#include <vector>

namespace annulus::testing {

/// The steps of a problem, without its arrays.
template <typename Real>
OracleSteps<Real> oracle_steps(const OracleProblem& p, OracleRounding rounding) {
  OracleSteps<Real> s{};
  s.batch = p.batch;
  s.seq = p.seq;
  s.seq_kv = p.seq_kv;
  s.heads = p.heads;
  s.heads_kv = p.heads_kv;
  s.dim = p.head_dim;
  s.dim_v = p.head_dim_v;
  s.scale = static_cast<Real>(p.softmax_scale);
  s.softcap = static_cast<Real>(p.softcap);
  s.rounding = rounding;
  return s;
}

/// What naive_attention() rounds to.
inline OracleRounding naive_rounding(DType dtype) {
  if (dtype == DType::bf16) return OracleRounding::bf16;
  return dtype == DType::f16 ? OracleRounding::f16 : OracleRounding::none;
}

/// [seq][seq_kv].
inline std::vector<std::uint8_t> allowed_pairs(const OracleProblem& p) {
  std::vector<std::uint8_t> pairs;
  for (std::int64_t i = 0; i < p.seq; ++i) {
    for (std::int64_t j = 0; j < p.seq_kv; ++j) pairs.push_back(allowed(p, i, j) ? 1 : 0);
  }
  return pairs;
}

inline std::vector<OracleStep> forward_steps() {
  return {OracleStep::scores, OracleStep::rows, OracleStep::out};
}
inline std::vector<OracleStep> backward_steps() {
  return {OracleStep::delta, OracleStep::ds, OracleStep::dq, OracleStep::dk, OracleStep::dv};
}

/// Runs all steps. Of `place`: bring() gives values of the host a place that steps read, take()
/// makes room for so many numbers, run() does a step, fetch() reads what take() gave.
template <typename Real, typename Place>
OracleResult run_oracle_steps(const OracleProblem& problem, const OracleInputs& in,
                              OracleRounding rounding, Place& place) {
  OracleSteps<Real> s = oracle_steps<Real>(problem, rounding);
  const auto reals = [](const std::vector<double>& values) {
    return std::vector<Real>(values.begin(), values.end());
  };
  const auto room = [&](OracleStep step) { return place.template take<Real>(s.count(step)); };
  s.q = place.bring(reals(in.q));
  s.k = place.bring(reals(in.k));
  s.v = place.bring(reals(in.v));
  s.allowed = place.bring(allowed_pairs(problem));
  s.p = room(OracleStep::scores);
  s.lse = room(OracleStep::rows);
  s.out = room(OracleStep::out);
  for (const OracleStep step : forward_steps()) place.run(s, step);
  OracleResult result;
  const auto fetch = [&](const Real* from, OracleStep step) {
    const std::vector<Real> values = place.fetch(from, s.count(step));
    return std::vector<double>(values.begin(), values.end());
  };
  result.out = fetch(s.out, OracleStep::out);
  result.lse = fetch(s.lse, OracleStep::rows);
  if (in.dout.empty()) return result;
  s.dout = place.bring(reals(in.dout));
  s.delta = room(OracleStep::delta);
  s.ds = room(OracleStep::ds);
  s.dq = room(OracleStep::dq);
  s.dk = room(OracleStep::dk);
  s.dv = room(OracleStep::dv);
  for (const OracleStep step : backward_steps()) place.run(s, step);
  result.dq = fetch(s.dq, OracleStep::dq);
  result.dk = fetch(s.dk, OracleStep::dk);
  result.dv = fetch(s.dv, OracleStep::dv);
  return result;
}

}  // namespace annulus::testing
