#pragma once

#include <annulus/problem.h>

#include <cmath>
#include <cstdint>
#include <vector>

// What attention is, in float64, written from the definition alone: dense loops over queries and
// keys and a predicate of positions. Shares no code with the library, so that both cannot be wrong
// alike.
namespace annulus::testing {

/// A Problem with every field set; `terms` are those of its mask.
struct OracleProblem {
  std::int64_t batch = 1;
  std::int64_t seq = 0;
  std::int64_t seq_kv = 0;
  std::int64_t heads = 1;
  std::int64_t heads_kv = 1;
  std::int64_t head_dim = 64;
  std::int64_t head_dim_v = 64;
  DType dtype = DType::f32;
  std::vector<Mask::Term> terms;
  double softcap = 0.0;
  double softmax_scale = 1.0;
};

inline OracleProblem oracle_problem(const Problem& p) {
  return {p.batch,
          p.seq,
          p.seq_kv.value_or(p.seq),
          p.heads,
          p.heads_kv.value_or(p.heads),
          p.head_dim,
          p.head_dim_v.value_or(p.head_dim),
          p.dtype,
          p.mask.terms(),
          p.softcap,
          p.softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(p.head_dim)))};
}

/// May query position i see key position j?
bool allowed(const OracleProblem& problem, std::int64_t i, std::int64_t j);

/// Compact [batch, seq, heads, dim]; dout may be empty.
struct OracleInputs {
  std::vector<double> q, k, v, dout;
};

/// out, dq, dk, dv as the inputs; lse [batch, heads, seq]. Gradients are empty without dout.
struct OracleResult {
  std::vector<double> out, lse, dq, dk, dv;
};

/// Normal inputs as elements of problem.dtype hold them.
OracleInputs random_inputs(const OracleProblem& problem, std::uint64_t seed, double scale = 1.0);

/// The truth.
OracleResult oracle_attention(const OracleProblem& problem, const OracleInputs& inputs);

/// The same formula by somebody who does not care: f32 sums; P, dS and every result rounded to
/// problem.dtype. The measure of what error a kernel of that precision may have.
OracleResult naive_attention(const OracleProblem& problem, const OracleInputs& inputs);

inline OracleResult oracle_attention(const Problem& problem, const OracleInputs& inputs) {
  return oracle_attention(oracle_problem(problem), inputs);
}
inline OracleResult naive_attention(const Problem& problem, const OracleInputs& inputs) {
  return naive_attention(oracle_problem(problem), inputs);
}

}  // namespace annulus::testing
