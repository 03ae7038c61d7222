#pragma once

#include "launch/bench/moe/source.h"

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::launch {

/// One token, or one pair of token and expert, in float64.
struct OracleToken {
  std::vector<double> x, dy;  ///< [hidden]
  double weight = 1.0;
  double* y = nullptr;   ///< [hidden], added to; null: not wanted
  double* dx = nullptr;  ///< the same
  double dweight = 0.0;  ///< <dy, expert(x)>
};

/// Rows of the gradients of one expert's weights, for columns `ffn`.
struct OracleGradients {
  std::vector<std::int64_t> ffn;
  std::vector<double> gate, up, down;  ///< [ffn columns][hidden]
};

/// One expert (or the shared MLP) in float64, a column of ffn at a time, so that no more than three
/// of its rows are held.
class OracleExpert {
 public:
  OracleExpert(const MoeRequest& request, const MoeSource& source, bool shared,
               std::int64_t expert);

  /// Adds to y, dx and dweight of every token.
  void run(std::span<OracleToken*> tokens);
  /// Adds what one token gives to the gradients of some columns.
  void add_gradients(const OracleToken& token, OracleGradients& gradients);

 private:
  void take(std::int64_t ffn);
  /// Of one column and token: what enters and leaves the activation.
  struct Column {
    double a = 0, da = 0, dgate = 0, dup = 0;
  };
  Column column(const OracleToken& token) const;

  const MoeRequest& request_;
  const MoeSource& source_;
  bool gated_, shared_;
  std::int64_t expert_;
  std::vector<double> gate_, up_, down_;
};

/// The weights that the router gives for these selections, and what dweights mean for the logits.
struct OracleRouting {
  std::vector<double> weights;  ///< [k]
  std::vector<double> dlogits;  ///< [experts]
};
OracleRouting oracle_router(const moe::RouterConfig& router, std::span<const double> logits,
                            std::span<const std::int32_t> selected,
                            std::span<const double> dweights);

}  // namespace annulus::launch
