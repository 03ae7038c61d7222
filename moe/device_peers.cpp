#include "moe/device_peers.h"

#include <algorithm>
#include <utility>

namespace annulus::moe {
namespace {

/// Messages of neighbouring meetings have different tags: a rank that is ahead meets no older one.
constexpr std::int64_t kMeetings = 4;

}  // namespace

DevicePeers::DevicePeers(comm::Communicator& communicator, const Group& group, std::uint32_t hash,
                         std::vector<std::byte*> regions)
    : group_(group),
      regions_(std::move(regions)),
      flights_(communicator, hash),
      words_(static_cast<std::size_t>(group.ranks)) {
  flights_.reserve(2 * static_cast<std::size_t>(group.ranks));
}

DevicePeers::DevicePeers(comm::Communicator& communicator, const Group& group, std::uint32_t hash,
                         RowCarrier& carrier)
    : DevicePeers(communicator, group, hash, std::vector<std::byte*>{}) {
  carrier_ = &carrier;
}

void DevicePeers::gather(const char* phase, std::span<const std::int64_t> mine,
                         std::span<std::int64_t> all) {
  const std::int64_t number = meetings_++ % kMeetings;
  const auto bytes = static_cast<std::int64_t>(mine.size_bytes());
  flights_.begin(phase, 0);
  for (int r = 0; r < group_.ranks; ++r) {
    const std::span<std::int64_t> to = all.subspan(static_cast<std::size_t>(r) * mine.size());
    if (r == group_.me) {
      std::ranges::copy(mine, to.begin());
      continue;
    }
    flights_.receive(group_.first + r, Cargo::counts, number, to.data(), bytes);
    flights_.send(group_.first + r, Cargo::counts, number, mine.data(), bytes);
  }
  flights_.wait();
}

void DevicePeers::meet(const char* phase) {
  const std::int64_t word = meetings_;
  gather(phase, {&word, 1}, words_);
}

}  // namespace annulus::moe
