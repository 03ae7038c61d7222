#include "attention/execute/cuda/device_launches.h"

#include <cstddef>
#include <span>

namespace annulus::attn {
namespace {

constexpr std::int64_t kAlign = 256;

std::int64_t padded(std::size_t bytes) {
  return (static_cast<std::int64_t>(bytes) + kAlign - 1) / kAlign * kAlign;
}

/// Calls fn(span) for each list of a geometry that kernels read. Backward walks its tiles by key,
/// forward by row.
template <typename Geometry, typename Fn>
void for_lists(Geometry& g, Pass pass, Fn&& fn) {
  fn(g.queries);
  fn(g.keys);
  fn(g.tiles);
  fn(g.row_tiles);
  if (pass == Pass::forward) return;
  fn(g.tiles_by_key);
  fn(g.key_tiles);
  fn(g.places);
}

}  // namespace

DeviceLaunches::DeviceLaunches(const Launches& host) : rank_(host.rank()), kernel_(host.kernel()) {
  const std::int64_t words = padded(rank_.attends.size() * sizeof(std::uint32_t));
  std::int64_t bytes = words + padded(std::as_bytes(std::span(host.intervals())).size());
  for (std::size_t i = 0; i < rank_.attends.size(); ++i) {
    AttendGeometry g = host.geometry(static_cast<std::int32_t>(i));
    const auto add = [&](const auto& list) { bytes += padded(std::as_bytes(list).size()); };
    for_lists(g, rank_.attends[i].pass, add);
    for (const auto& needed : host.launches()[i].needed) add(std::span(needed));
    geometries_.push_back(g);
  }
  lists_ = DeviceBuffer(bytes);

  std::int64_t at = words;
  const auto to_device = [&]<typename T>(std::span<const T>& list) {
    const auto raw = std::as_bytes(list);
    lists_.upload(raw, at);
    list = {reinterpret_cast<const T*>(lists_.data() + at), list.size()};
    at += padded(raw.size());
  };
  std::span<const RowIntervals> intervals(host.intervals());
  to_device(intervals);
  for (std::size_t i = 0; i < geometries_.size(); ++i) {
    AttendGeometry& g = geometries_[i];
    if (rank_.attends[i].pass == Pass::forward) {
      // Not uploaded: nothing may point to the host's lists.
      g.tiles_by_key = {};
      g.key_tiles = {};
      g.places = {};
    }
    const Launch& launch = host.launches()[i];
    std::vector<KeySegment> keys(g.keys.begin(), g.keys.end());
    for (std::size_t s = 0; s < launch.needed.size(); ++s) {
      std::span<const std::uint32_t> needed(launch.needed[s]);
      to_device(needed);
      keys[s].ready = arrived() + i;
      keys[s].all = launch.arrivals;
      keys[s].needed = needed.data();
    }
    g.keys = keys;
    for_lists(g, rank_.attends[i].pass, to_device);
    g.intervals = intervals;
  }
}

void DeviceLaunches::run(std::int32_t index, const Memory& memory,
                         const LaunchContext& context) const {
  const auto i = static_cast<std::size_t>(index);
  run_attend(kernel_, rank_.attends[i], geometries_[i], memory, context);
}

}  // namespace annulus::attn
