#include "moe/balance.h"

#include <algorithm>
#include <numeric>

namespace annulus::moe {

std::int64_t used_sets(const LossScope& scope) {
  return std::ranges::count_if(scope.tokens, [](std::int64_t n) { return n > 0; });
}

std::int64_t sum_scope(BalanceOver over, const SumOverRanks& sum, LossScope& scope,
                       std::vector<std::int64_t>& words) {
  const auto total = [](std::span<const std::int64_t> tokens) {
    return std::accumulate(tokens.begin(), tokens.end(), std::int64_t{0});
  };
  if (over == BalanceOver::rank) {
    std::int64_t tokens = total(scope.tokens);
    sum({&tokens, 1});
    return tokens;
  }
  words.assign(scope.selections.begin(), scope.selections.end());
  words.insert(words.end(), scope.tokens.begin(), scope.tokens.end());
  sum(words);
  const auto middle = words.begin() + std::ssize(scope.selections);
  std::copy(words.begin(), middle, scope.selections.begin());
  std::copy(middle, words.end(), scope.tokens.begin());
  return total(scope.tokens);
}

}  // namespace annulus::moe
