#pragma once

#include "comm/device/device_link.h"
#include "comm/peer/control_block.h"
#include "comm/peer/driver.h"

#include <cuda_runtime_api.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace annulus::comm::peer {

/// Gives the waits of a GPU's streams a deadline. A thread looks at mapped host words that say what
/// each stream waits for. When nothing has changed for `timeout_s`, it raises every signal of this
/// rank and the abort words of all ranks, so that streams and spinning kernels go on; results are
/// void. The same when another rank raised our abort word, and at once when a stream stands at a
/// signal that holds another plan's value.
class Watch {
 public:
  /// What the streams of one rank say, in mapped host memory. Written in stream order.
  struct Words {
    std::uint32_t calls;       ///< counts calls, replays of a graph included
    std::uint32_t pass;        ///< of the call that runs: an index of the caller's
    std::uint32_t awaited[2];  ///< by lane: 1 + transfer, 0: none
  };

  /// A signal that holds what is not of the plan that waits for it.
  struct Stranger {
    std::uint32_t transfer = 0;  ///< of the pass in found()
    std::uint32_t found = 0;     ///< 0: none was seen
    std::uint32_t wanted = 0;
  };

  /// `blocks`: of every rank; empty ones cannot be told.
  Watch(const Driver& driver, int rank, int device, std::vector<ControlBlock> blocks,
        double timeout_s);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  Words* words() const { return words_; }

  /// True once the streams were let go.
  bool fired() const { return fired_.load(std::memory_order_acquire); }
  /// What the streams waited for when it happened; awaited 0 both: another rank gave up.
  Words found() const { return found_; }
  double waited_s() const { return waited_s_; }
  const Stranger& stranger() const { return stranger_; }

  /// The signals that calls of `pass` (Words::pass) wait for, by transfer; until forget().
  void expect(std::uint32_t pass, std::vector<DeviceLink::Signal> signals);
  void forget(std::uint32_t pass);

  /// Reads our abort word now.
  bool aborted() const;

  /// Has everything let go soon, here and on the other ranks, as after a timeout.
  void let_go() noexcept;

  /// Called each time that everything is let go, by the watch's thread. Must return at once and not
  /// throw. Set before the first call.
  void also(std::function<void()> let_go) {
    const std::scoped_lock lock(mutex_);
    let_go_ = std::move(let_go);
  }

 private:
  /// Lets everything go, here and on the other ranks.
  void fire() noexcept;
  void look();
  /// Reads a word of device memory, beside whatever runs.
  std::uint32_t read_word(const std::uint32_t* word) const;
  Stranger find_stranger(const Words& now) const;
  Stranger find_stranger_if_alive(const Words& now) const noexcept;
  bool told_to_stop() const noexcept;
  void release() const;

  const Driver& driver_;
  int rank_;
  int device_;
  std::vector<ControlBlock> blocks_;
  double timeout_s_;
  Words* words_ = nullptr;
  std::uint32_t* word_copy_ = nullptr;  ///< pinned
  cudaStream_t stream_ = nullptr;       ///< highest priority: runs where others wait
  Words found_{};
  double waited_s_ = 0;
  Stranger stranger_;
  std::map<std::uint32_t, std::vector<DeviceLink::Signal>> expected_;  ///< by pass
  std::atomic<bool> fired_{false};
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::function<void()> let_go_;
  bool stop_ = false;
  bool asked_ = false;  ///< let_go()
  std::thread thread_;
};

}  // namespace annulus::comm::peer
