#pragma once

#include "attention/kernels/dispatch.h"
#include "tests/gpu/launch_times.h"
#include "tests/gpu/timed_shapes.h"
#include "tests/support/oracle.h"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

// What programs share that show tunings of a Hopper kernel side by side.
namespace annulus::testing {

/// A way to compute one pass in bf16: what is launched, or a candidate.
struct Variant {
  std::string name;
  std::int64_t dim = 0;
  attn::Kernel kernel{};   ///< with the tile grid it wants; no softcap
  bool right = true;       ///< else it is timed alone
  bool traced = false;     ///< writes how long phases take
  bool uncleared = false;  ///< to be timed with a dQ that is added to
};
using Variants = std::vector<Variant>;

Variants of_dim(const Variants& all, std::int64_t dim);

/// Causal, 2 x seq tokens, 4:2 heads.
OracleProblem variant_problem(std::int64_t seq, std::int64_t dim);

/// Calls `work` with a function that takes the share of its bound that each error has, and prints
/// it. False where one is above 1.
bool print_shares(const Variant& v,
                  const std::function<void(const std::function<void(double)>&)>& work);

/// What a first argument makes such a program do; returns its exit status.
using Action = std::function<int(const Variants&)>;
/// The whole program: PROGRAM list | ACTION [NAME...]. NAME: "early 128", "early" (of every head
/// dim) or "128"; none: all. 77 without a Hopper GPU, 2 where there is nothing to do.
int run_variants(int argc, char** argv, Variants (*all)(),
                 const std::map<std::string, Action>& actions);

/// A table a head dim, of full and causal: `row` gives each variant's TFLOP/s at a shape.
using ShapeRow = std::function<std::vector<double>(const Variants&, const TimedShape&)>;
void print_tables(const Variants& all, const std::vector<std::int64_t>& lengths, int rounds,
                  const ShapeRow& row);

/// FLOP, then clocks and count of each phase: what block 0 of a traced variant writes (trace.cuh).
using Said = std::vector<std::uint64_t>;
/// Of one launch with that context, whose FLOP counter is then none.
Said said_by(attn::LaunchContext& context, std::size_t phases, const std::function<void()>& launch);

/// A line for each traced variant, full and causal, at each length: means of clocks, each over how
/// often its phase ended. `trace` launches once and gives what was said.
using Trace = std::function<Said(const Variant&, const TimedShape&)>;
int trace_all(const Variants& all, const std::vector<std::int64_t>& lengths,
              std::span<const char* const> names, const Trace& trace);

}  // namespace annulus::testing
