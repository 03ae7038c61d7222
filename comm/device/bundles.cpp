#include "comm/device/bundles.h"

#include <cstddef>
#include <map>
#include <tuple>

namespace annulus::comm {

std::vector<BundleFlags> bundle_flags(std::span<const BundleMember> transfers) {
  using Ends = std::tuple<bool, int, std::int32_t>;  // sends, peer, bundle
  std::map<Ends, std::int32_t> first;
  std::map<std::tuple<Ends, std::int32_t>, std::int32_t> last;  // by round
  std::vector<BundleFlags> flags;
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    const auto own = static_cast<std::int32_t>(i);
    const BundleMember& t = transfers[i];
    flags.push_back({own, own});
    if (t.bundle < 0) continue;
    const Ends ends{t.sends, t.peer, t.bundle};
    flags.back().opener = first.try_emplace(ends, own).first->second;
    last[{ends, t.round}] = own;
  }
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    const BundleMember& t = transfers[i];
    if (t.bundle >= 0) flags[i].closer = last.at({Ends{t.sends, t.peer, t.bundle}, t.round});
  }
  return flags;
}

}  // namespace annulus::comm
