#include "launch/bench/hold.h"

#include "launch/bench/measure.h"

#include <annulus/collective.h>

#include <sched.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <string>

namespace annulus::launch {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kHeldAtMost = 5.0;
/// Until all ranks have heard of each other.
constexpr double kLead = 300e-6;
/// Ranks that were ready further apart than this have just left a barrier: their clocks differ.
constexpr double kFarthest = 10e-3;

double now_s() { return std::chrono::duration<double>(Clock::now().time_since_epoch()).count(); }

std::uint64_t machine() {
  std::string id;
  std::ifstream("/proc/sys/kernel/random/boot_id") >> id;
  return std::hash<std::string>()(id);
}

}  // namespace

double opening(std::span<const Ready> all, std::size_t rank) {
  const Ready& mine = all[rank];
  if (all.size() == 1) return mine.at_s;
  double last = mine.at_s;
  for (const Ready& r : all) {
    if (r.machine == mine.machine) last = std::max(last, r.at_s);
  }
  return last - mine.at_s > kFarthest ? mine.at_s : last + kLead;
}

Hold::Hold(Mesh& mesh, const DeviceStream& stream, bool held)
    : mesh_(mesh), stream_(stream), is_released_(!held) {
  if (!held) return;
  stream_.hold();
  late_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    const auto limit = std::chrono::duration<double>(kHeldAtMost);
    if (released_.wait_for(lock, limit, [this] { return is_released_; })) return;
    is_released_ = true;
    stream_.release();
  });
}

Hold::~Hold() {
  release();
  if (late_.joinable()) late_.join();
}

void Hold::release() {
  {
    const std::scoped_lock lock(mutex_);
    if (is_released_) return;
    is_released_ = true;
    stream_.release();
  }
  released_.notify_all();
}

bool Hold::is_released() const {
  const std::scoped_lock lock(mutex_);
  return is_released_;
}

bool Hold::open(std::string_view what) {
  barrier(mesh_, what);  // whoever waits long here sleeps: times are compared afterwards
  const bool held = !is_released();
  const auto all = gather_one(mesh_, Ready{machine(), now_s(), held});
  if (held) {
    const double at = opening(all, static_cast<std::size_t>(mesh_.rank()));
    while (now_s() < at) sched_yield();
    release();
  }
  return std::ranges::all_of(all, &Ready::held);
}

}  // namespace annulus::launch
