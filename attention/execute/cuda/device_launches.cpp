#include "attention/execute/cuda/device_launches.h"

#include "attention/execute/cuda/row_kernels.h"

#include <algorithm>
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

std::size_t first_with_lists_of(const Launches& host, std::size_t attend) {
  return static_cast<std::size_t>(host.first_with_lists_of(static_cast<std::int32_t>(attend)));
}

/// An attend before this one has the same lists.
bool shared(const Launches& host, std::size_t attend) {
  return first_with_lists_of(host, attend) != attend;
}

/// Those of `from` are on the device.
void share_lists(AttendGeometry& g, const AttendGeometry& from) {
  g.queries = from.queries;
  g.keys = from.keys;
  g.tiles = from.tiles;
  g.row_tiles = from.row_tiles;
  g.tiles_by_key = from.tiles_by_key;
  g.key_tiles = from.key_tiles;
  g.places = from.places;
  g.covered_rows = from.covered_rows;
  g.intervals = from.intervals;
  g.kept = from.kept;
}

}  // namespace

void DeviceLaunches::place_words(const Launches& host) {
  word_count_ = static_cast<int>(rank_.attends.size());
  for (std::size_t i = 0; i < rank_.attends.size(); ++i) {
    Done& done = done_.emplace_back();
    if (!rank_.attends[i].by_head) continue;
    const AttendGeometry g = host.geometry(static_cast<std::int32_t>(i));
    const std::size_t tiles = g.key_tiles.empty() ? 0 : g.key_tiles.size() - 1;
    done.word = word_count_;
    done.heads = static_cast<int>((g.head_offset + g.heads - 1) / g.group + 1);
    // Never 0: whoever waits for it waits for the launch at least.
    done.all = static_cast<std::uint32_t>(
        std::max<std::int64_t>(1, g.batch * static_cast<std::int64_t>(tiles)));
    word_count_ += done.heads;
  }
}

/// Takes over the host's geometries, with what kernels keep of each. Bytes of all lists.
std::int64_t DeviceLaunches::place(const Launches& host,
                                   std::vector<std::vector<std::byte>>& kept) {
  std::int64_t bytes = padded(std::as_bytes(std::span(host.intervals())).size());
  for (std::size_t i = 0; i < rank_.attends.size(); ++i) {
    AttendGeometry g = host.geometry(static_cast<std::int32_t>(i));
    geometries_.push_back(g);
    if (shared(host, i)) continue;
    if (rank_.attends[i].pass == Pass::forward && kernel_.make_kept != nullptr) {
      kept[i] = kernel_.make_kept(g);
      bytes += padded(kept[i].size());
    }
    const auto add = [&](const auto& list) { bytes += padded(std::as_bytes(list).size()); };
    for_lists(g, rank_.attends[i].pass, add);
    for (const auto& needed : host.launch(static_cast<std::int32_t>(i)).needed) {
      add(std::span(needed));
    }
  }
  return bytes;
}

/// One image of all lists is written on the host, with the addresses that they will have, and goes
/// to the device by one copy.
DeviceLaunches::DeviceLaunches(const Launches& host, DevicePool& pool, WordPool& words)
    : rank_(host.rank()), kernel_(host.kernel()) {
  place_words(host);
  std::vector<std::vector<std::byte>> kept(rank_.attends.size());
  lists_ = pool.take(place(host, kept));  // first: it throws while a graph captures the stream
  words_ = words.take(word_count_);
  std::ranges::fill(pool.stage(words_.bytes()), std::byte{0});
  pool.send(reinterpret_cast<std::byte*>(words_.data()));
  const std::span<std::byte> image = pool.stage(lists_.bytes());

  std::int64_t at = 0;
  const auto to_device = [&]<typename T>(std::span<const T>& list) {
    const auto raw = std::as_bytes(list);
    std::ranges::copy(raw, image.begin() + at);
    list = {reinterpret_cast<const T*>(lists_.data() + at), list.size()};
    at += padded(raw.size());
  };
  std::span<const RowIntervals> intervals(host.intervals());
  to_device(intervals);
  for (std::size_t i = 0; i < geometries_.size(); ++i) {
    AttendGeometry& g = geometries_[i];
    if (shared(host, i)) {
      share_lists(g, geometries_[first_with_lists_of(host, i)]);
      continue;
    }
    if (rank_.attends[i].pass == Pass::forward) {
      // Not uploaded: nothing may point to the host's lists.
      g.tiles_by_key = {};
      g.key_tiles = {};
      g.places = {};
    }
    g.kept = {lists_.data() + at, kept[i].size()};
    std::span<const std::byte> of_launch(kept[i]);
    to_device(of_launch);
    const Launch& launch = host.launch(static_cast<std::int32_t>(i));
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
    g.intervals = intervals.subspan(static_cast<std::size_t>(launch.first_row), g.intervals.size());
  }
  pool.send(lists_.data());
}

void DeviceLaunches::run(std::int32_t index, const Memory& memory,
                         const LaunchContext& context) const {
  const auto i = static_cast<std::size_t>(index);
  std::uint32_t* words = done(index);
  run_attend(kernel_, rank_.attends[i], geometries_[i], memory, context, words);
  // For kernels that do not count, and those that were aborted.
  if (words != nullptr) {
    launch_fill(words, done_[i].heads, done_[i].all, static_cast<cudaStream_t>(context.stream));
  }
}

}  // namespace annulus::attn
