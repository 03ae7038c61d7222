#include "comm/device/queues.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <map>
#include <set>
#include <string_view>
#include <tuple>
#include <vector>

namespace annulus::comm {
namespace {

constexpr int kDefaultQueues = 8;
constexpr int kMostQueues = 32;

}  // namespace

int hardware_queues(const char* max_connections) {
  if (max_connections == nullptr) return kDefaultQueues;
  const int asked = std::atoi(max_connections);
  return asked < 1 ? kDefaultQueues : std::min(asked, kMostQueues);
}

std::string crowded_queues(std::span<const Seat> seats) {
  std::map<std::tuple<std::int64_t, std::int64_t, std::int32_t>, int> ranks;
  for (const Seat& s : seats) ++ranks[{s.host, s.process, s.device}];
  for (std::size_t r = 0; r < seats.size(); ++r) {
    const Seat& s = seats[r];
    const int together = ranks[{s.host, s.process, s.device}];
    const int needed = together * kStreamsARank;
    if (together == 1 || needed <= s.queues) continue;
    const std::string cure =
        needed <= kMostQueues
            ? fmt::format("set CUDA_DEVICE_MAX_CONNECTIONS={} or start ranks as processes", needed)
            : fmt::format("start ranks as processes: there are {} at most", kMostQueues);
    return fmt::format(
        "rank {}: {} ranks that are threads of one process share GPU {}: their {} streams may wait "
        "for each other and need a hardware queue each, there are {}: {}",
        r, together, s.device, needed, s.queues, cure);
  }
  return {};
}

bool share_gpus(std::span<const Seat> seats) {
  std::set<std::tuple<std::int64_t, std::int64_t, std::int32_t>> gpus;
  for (const Seat& s : seats) gpus.insert({s.host, s.process, s.device});
  return gpus.size() < seats.size();
}

bool require_queues(Communicator& communicator, int device) {
  const Seat mine{static_cast<std::int64_t>(std::hash<std::string_view>()(communicator.host())),
                  getpid(), device, hardware_queues(std::getenv("CUDA_DEVICE_MAX_CONNECTIONS"))};
  std::vector<Seat> seats(static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(std::span(&mine, 1)),
                          std::as_writable_bytes(std::span(seats)), "GPUs of the ranks");
  const std::string crowded = crowded_queues(seats);
  if (!crowded.empty()) throw InvalidArgument(crowded);
  return share_gpus(seats);
}

}  // namespace annulus::comm
