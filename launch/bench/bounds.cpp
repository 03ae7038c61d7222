#include "launch/bench/check.h"
#include "launch/bench/element.h"

#include <cmath>
#include <limits>

namespace annulus::launch {

// Two sources. (1) fp32 sums: products of D terms, then of `terms` rows; errors of a sum grow like
// its square root when they are independent (Higham 2002, section 4.2), with headroom for the
// exponential, which turns an absolute error of a score into a relative one.
// (2) Rounding to `dtype`: `out` once (u), twice as headroom for kernels that round P too. In
// gradients the rounded O enters delta, and P and dS may be rounded before their product: up to
// four roundings of operands that are as large as the result, doubled where differences (dP -
// delta) amplify them. lse never leaves fp32. Wrong masks, scales or merges err by order 1.
double bound_of(std::string_view name, DType dtype, std::int64_t terms) {
  const double sums = 0x1p-24 * (64.0 + 4.0 * std::sqrt(static_cast<double>(terms)));
  const double u = dtype == DType::f32 ? 0.0 : unit_roundoff(dtype);
  if (name == "lse") return sums;
  if (name == "out") return sums + 2.0 * u;
  if (name == "dv") return sums + 4.0 * u;
  return 2.0 * sums + 8.0 * u;
}

bool CheckReport::passed() const {
  for (const CheckLine& line : lines) {
    if (!(line.rel_err <= line.bound)) return false;  // NaN fails
  }
  return true;
}

}  // namespace annulus::launch
