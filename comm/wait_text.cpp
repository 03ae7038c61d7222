#include "comm/wait_text.h"

#include <fmt/format.h>

namespace annulus::comm {

std::string name_ranks(std::span<const int> ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (i > 0) text += ", ";
    text += fmt::format("{}", ranks[i]);
    if (last == i + 1) text += fmt::format(", {}", ranks[last]);
    if (last > i + 1) text += fmt::format("-{}", ranks[last]);
    i = last + 1;
  }
  return text;
}

std::string timeout_text(int rank, int size, std::string_view what, double waited_s,
                         std::span<const int> missing) {
  std::string text =
      fmt::format("rank {} of {}: waited {:.1f} s for '{}'", rank, size, waited_s, what);
  if (!missing.empty()) {
    text += fmt::format("; {} did not arrive", name_ranks(missing));
  }
  return text;
}

std::string peer_failure_text(int rank, int size, int failed, std::string_view reason) {
  return fmt::format("rank {} of {}: stopped because rank {} failed: {}", rank, size, failed,
                     reason);
}

std::string abort_text(int rank, int size) {
  return fmt::format("rank {} of {}: aborted by the caller", rank, size);
}

}  // namespace annulus::comm
