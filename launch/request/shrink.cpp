#include "launch/request/problem.h"

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <variant>

namespace annulus::launch {
namespace {

/// What there is of something stays: 0 and -1 (unbounded) as they are, the rest at least 1.
std::int64_t divided(std::int64_t length, std::int64_t by) {
  return length <= 0 ? length : std::max<std::int64_t>(1, length / by);
}

Mask term_of(const Mask::Term& term, std::int64_t by) {
  return std::visit(
      [by](const auto& t) -> Mask {
        using T = std::decay_t<decltype(t)>;
        if constexpr (std::is_same_v<T, Mask::Causal>) {
          return Mask::causal(t.align);
        } else if constexpr (std::is_same_v<T, Mask::Window>) {
          return Mask::window(divided(t.left, by), divided(t.right, by), t.align);
        } else if constexpr (std::is_same_v<T, Mask::Documents>) {
          std::vector<std::int64_t> lengths = t.lengths;
          for (std::int64_t& length : lengths) length = divided(length, by);
          return Mask::documents(std::move(lengths), t.causal);
        } else if constexpr (std::is_same_v<T, Mask::Prefix>) {
          return Mask::prefix(divided(t.length, by), t.align);
        } else {
          throw InvalidArgument("shrink: a mask given row by row cannot be shrunk");
        }
      },
      term);
}

}  // namespace

Problem shrunk(const Problem& problem, std::int64_t by) {
  if (by == 1) return problem;
  Problem small = problem;
  small.seq = divided(problem.seq, by);
  if (problem.seq_kv) small.seq_kv = divided(*problem.seq_kv, by);
  small.mask = Mask::full();
  for (const Mask::Term& term : problem.mask.terms()) {
    small.mask = small.mask & term_of(term, by);
    // Documents keep at least a token each, so that they set the length rather than follow it.
    if (const auto* documents = std::get_if<Mask::Documents>(&small.mask.terms().back())) {
      small.seq =
          std::accumulate(documents->lengths.begin(), documents->lengths.end(), std::int64_t{0});
      small.seq_kv = small.seq;
    }
  }
  return small;
}

}  // namespace annulus::launch
