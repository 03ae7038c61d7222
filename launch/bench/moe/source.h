#pragma once

#include "launch/request/moe.h"

#include <cstdint>
#include <vector>

namespace annulus::launch {

/// Every input of a benchmark as a pure function of the seed, so that any rank can make any part
/// and none has to be sent. Weights are uniform in (-1, 1) times a power of two, exact in bf16;
/// tokens are normal.
class MoeSource {
 public:
  MoeSource(const MoeRequest& request, std::uint64_t seed);

  enum class Part : std::uint8_t { gate, up, down, shared_gate, shared_up, shared_down, router };

  /// Row of a matrix: gate and up by ffn column, router by expert, hidden wide; down by ffn column
  /// too, as if it lay turned.
  void weights(Part part, std::int64_t expert, std::int64_t row, double* out) const;
  /// Of one token of all ranks' order.
  void x(std::int64_t token, double* out) const;
  void dy(std::int64_t token, double* out) const;

  /// Of these tokens; kinds other than `router`.
  moe::Routing routing(RoutingKind kind, const std::vector<std::int64_t>& tokens) const;

 private:
  const MoeRequest& request_;
  std::uint64_t seed_;
  double in_scale_, out_scale_, shared_out_scale_;
  std::vector<double> zipf_;  ///< cumulative
};

}  // namespace annulus::launch
