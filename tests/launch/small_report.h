#pragma once

#include "launch/bench/report.h"

namespace annulus::launch {

/// Of a forward of 64 tokens on one rank: what a test of one part of the report starts from.
inline BenchReport small_report() {
  BenchReport r;
  r.problem = resolved(Problem{.seq = 64, .heads = 2, .head_dim = 8});
  r.forward = Timing{.median_s = 0.002, .min_s = 0.001, .max_s = 0.004, .p99_s = 0.004};
  r.bytes_sent = {10};
  CostRequest cost;
  cost.seq = 64;
  r.cost = price(cost);
  return r;
}

}  // namespace annulus::launch
