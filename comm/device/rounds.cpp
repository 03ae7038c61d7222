#include "comm/device/rounds.h"

#include <cstddef>

namespace annulus::comm {

std::vector<std::int32_t> round_ends(const std::vector<RoundMember>& transfers) {
  std::vector<std::int32_t> ends(transfers.size());
  std::int32_t next = -1;  // the grouped transfer that follows, and is an end's member or beyond
  for (std::size_t i = transfers.size(); i-- > 0;) {
    const auto own = static_cast<std::int32_t>(i);
    ends[i] = own;
    if (!transfers[i].grouped) continue;
    if (next >= 0 && transfers[static_cast<std::size_t>(next)].round == transfers[i].round) {
      ends[i] = ends[static_cast<std::size_t>(next)];
    }
    next = own;
  }
  return ends;
}

}  // namespace annulus::comm
