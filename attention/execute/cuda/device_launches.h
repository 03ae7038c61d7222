#pragma once

#include "attention/execute/launches.h"
#include "runtime/base/device_pool.h"
#include "runtime/base/word_pool.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// The attend tasks of one rank's plan with everything that their kernels read in device memory.
/// Made once, at bind; the host's lists are dropped.
class DeviceLaunches {
 public:
  /// On the current device. The lists lie in `pool` and are there once what its stream holds now is
  /// over, as are the words, of `words`, which are 0 then.
  DeviceLaunches(const Launches& host, DevicePool& pool, WordPool& words);

  /// Enqueues attend `index` on context.stream.
  void run(std::int32_t index, const Memory& memory, const LaunchContext& context) const;

  /// Does the kernel of the first attend set the FLOP counter to 0 when it is told to?
  bool zero_flops() const { return kernel_.zeroes_flops && !rank_.attends.empty(); }

  /// A word for each attend: how many of the transfers that bring its keys are over. Kernels whose
  /// keys arrive while they run read it.
  std::uint32_t* arrived() const { return words(); }

  /// A word for each key/value head of attend `index`, if it leaves its results by head, else null:
  /// how many of its done_all() key tiles are written.
  std::uint32_t* done(std::int32_t index) const {
    const Done& d = done_[static_cast<std::size_t>(index)];
    return d.heads > 0 ? words() + d.word : nullptr;
  }
  std::uint32_t done_all(std::int32_t index) const {
    return done_[static_cast<std::size_t>(index)].all;
  }

  /// All of these words, which are 0 when a call begins.
  std::uint32_t* words() const { return words_.data(); }
  int word_count() const { return word_count_; }

  /// What the kernel is told of attend `index`: spans refer to the device.
  const AttendGeometry& geometry(std::int32_t index) const {
    return geometries_[static_cast<std::size_t>(index)];
  }

  /// Device memory that the lists take.
  std::int64_t bytes() const { return lists_.bytes() + words_.bytes(); }

 private:
  struct Done {
    int word = 0;
    int heads = 0;
    std::uint32_t all = 0;
  };
  void place_words(const Launches& host);
  std::int64_t place(const Launches& host, std::vector<std::vector<std::byte>>& kept);

  const RankPlan& rank_;
  const Kernel& kernel_;
  int word_count_ = 0;
  std::vector<Done> done_;  ///< by attend
  PoolBuffer lists_;
  PoolWords words_;
  std::vector<AttendGeometry> geometries_;  ///< spans refer to lists_
};

}  // namespace annulus::attn
