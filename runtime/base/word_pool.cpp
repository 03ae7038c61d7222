#include "runtime/base/word_pool.h"

#include <algorithm>

namespace annulus {

PoolWords::~PoolWords() {
  if (pool_ != nullptr) pool_->give_back(words_);
}

PoolWords WordPool::take(std::int64_t count) {
  if (count == 0) return {};
  count = (count + kStep - 1) / kStep * kStep;
  auto at = std::ranges::find_if(free_, [&](const auto& range) { return range.second >= count; });
  if (at == free_.end()) {
    const std::int64_t words = std::max(count, kChunk);
    chunks_.emplace_back(words * static_cast<std::int64_t>(sizeof(std::uint32_t)));
    at = free_.emplace(reinterpret_cast<std::uint32_t*>(chunks_.back().data()), words).first;
  }
  const auto [begin, words] = *at;
  free_.erase(at);
  if (words > count) free_.emplace(begin + count, words - count);
  return {*this, {begin, static_cast<std::size_t>(count)}};
}

/// Joined with its neighbours: chunks that lie side by side are as good as one.
void WordPool::give_back(std::span<std::uint32_t> words) noexcept {
  try {
    auto at = free_.emplace(words.data(), static_cast<std::int64_t>(words.size())).first;
    const auto join = [&](auto first, auto second) {
      if (first->first + first->second != second->first) return first;
      first->second += second->second;
      free_.erase(second);
      return first;
    };
    if (at != free_.begin() && std::prev(at)->first + std::prev(at)->second == at->first) {
      at = join(std::prev(at), at);
    }
    if (std::next(at) != free_.end()) join(at, std::next(at));
  } catch (...) {
    // no memory for the list: the words go with the pool
  }
}

}  // namespace annulus
