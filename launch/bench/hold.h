#pragma once

#include <annulus/annulus.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>
#include <string_view>
#include <thread>

namespace annulus::launch {

/// Holds a GPU's stream until what is enqueued on it is there on every rank, so that what is
/// measured begins on all of them at once and no host time is in it. Opens in any case: when a call
/// throws, and after a while on its own, since a stream's queue is finite (some 1000 entries) and
/// the host that fills it would wait for what it holds itself.
class Hold {
 public:
  /// `held` false: does nothing but the barrier of open(). The same on every rank.
  Hold(Mesh& mesh, const DeviceStream& stream, bool held = true);
  Hold(const Hold&) = delete;
  Hold& operator=(const Hold&) = delete;
  ~Hold();

  /// Collective. True where every rank's stream was held until here.
  bool open(std::string_view what);

 private:
  void release();
  bool is_released() const;

  Mesh& mesh_;
  const DeviceStream& stream_;
  mutable std::mutex mutex_;
  std::condition_variable released_;
  bool is_released_ = false;
  std::thread late_;  ///< opens when nobody else does
};

/// When a rank stood ready, by the clock of its machine.
struct Ready {
  std::uint64_t machine = 0;
  double at_s = 0;
  bool held = true;
};

/// Pure: when rank `rank` opens, by its own clock. Ranks of one machine open at the same moment,
/// soon after the last of them was ready: they leave a barrier apart, and further where one of them
/// slept in it. Clocks that do not agree are left alone.
double opening(std::span<const Ready> all, std::size_t rank);

}  // namespace annulus::launch
