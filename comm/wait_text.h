#pragma once

#include <span>
#include <string>
#include <string_view>

namespace annulus::comm {

/// "rank 3", "ranks 0, 2, 5-7". Ascending.
std::string name_ranks(std::span<const int> ranks);

/// Text of the Timeout of a collective wait.
std::string timeout_text(int rank, int size, std::string_view what, double waited_s,
                         std::span<const int> missing);

/// Text of the CommError of a rank whose wait ends because another one failed.
std::string peer_failure_text(int rank, int size, int failed, std::string_view reason);

/// Text of the CommError after abort().
std::string abort_text(int rank, int size);

}  // namespace annulus::comm
