#pragma once

#include <cstdint>
#include <vector>

namespace annulus::comm {

/// A transfer as a link groups it.
struct RoundMember {
  std::int32_t round = 0;  ///< never falls along a rank's transfers
  bool grouped = false;    ///< false: it goes alone
};

/// By transfer: the last grouped one of its round, or itself where it goes alone. Both ends of a
/// transfer derive the same groups in the same order from this, since they know the same rounds and
/// link of each pair of ranks.
std::vector<std::int32_t> round_ends(const std::vector<RoundMember>& transfers);

}  // namespace annulus::comm
