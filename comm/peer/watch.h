#pragma once

#include "comm/device/device_link.h"
#include "comm/peer/control_block.h"
#include "comm/peer/notes.h"
#include "runtime/base/cuda_handles.h"

#include <cuda_runtime_api.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace annulus::comm::peer {

/// Gives the waits of a GPU's streams a deadline. A thread looks at words that say what each stream
/// waits for. When nothing has changed for `timeout_s`, it raises every signal of this rank and the
/// abort words of all ranks, so that streams and spinning kernels go on; results are void. The same
/// when another rank raised our abort word, and at once when a stream stands at a signal that holds
/// another plan's value.
///
/// What is awaited is noted between copies, so it stands in memory of the GPU, next to the abort
/// word: a look copies both, some twenty times a deadline, on a stream of its own. A process with
/// fewer hardware queues than a rank has streams keeps the notes in mapped host memory. A rank
/// alone is not looked at.
///
/// All that the watch does on the GPU are copies from and to pinned memory: copy engines have
/// queues of their own. A memset is a kernel, which with one queue stands behind the very wait that
/// it is to end, and beside a kernel that holds every SM does not start (docs/notes/01 and 05).
class Watch {
 public:
  /// A signal that holds what is not of the plan that waits for it.
  struct Stranger {
    std::uint32_t transfer = 0;  ///< of the pass in found()
    std::uint32_t found = 0;     ///< 0: none was seen
    std::uint32_t wanted = 0;
  };

  /// `blocks`: of every rank; empty ones cannot be told. `queues`: hardware queues of this process.
  Watch(int rank, int device, std::vector<ControlBlock> blocks, double timeout_s, int queues);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  /// Of these, calls and pass are to be written.
  Notes* words() const { return words_; }
  /// Where a lane's stream says what it waits for (LinkStream::awaited).
  std::uint32_t* awaited(int lane) const {
    return notes_on_host_ ? &words_->awaited[lane] : own().awaited(lane);
  }

  /// True once the streams were let go.
  bool fired() const { return fired_.load(std::memory_order_acquire); }
  /// What the streams waited for when it happened; awaited 0 both: another rank gave up.
  Notes found() const { return found_; }
  double waited_s() const { return waited_s_; }
  const Stranger& stranger() const { return stranger_; }

  /// The signals that calls of `pass` (Notes::pass) wait for, by transfer; until forget().
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
  const ControlBlock& own() const { return blocks_[static_cast<std::size_t>(rank_)]; }
  /// Lets everything go, here and on the other ranks; they waited for `now`.
  void fire(const Notes& now) noexcept;
  void look();
  /// Reads words of device memory, beside whatever runs.
  template <std::size_t kCount>
  std::array<std::uint32_t, kCount> read_words(const std::uint32_t* words) const;
  Notes host_notes() const;
  Seen see() const;
  Seen see_if_alive() const noexcept;
  Stranger find_stranger(const Notes& now) const;
  Stranger find_stranger_if_alive(const Notes& now) const noexcept;
  void release();
  void tell_others();

  int rank_;
  int device_;
  std::vector<ControlBlock> blocks_;
  double timeout_s_;
  bool notes_on_host_;
  struct Pinned;
  Pinned* pinned_ = nullptr;
  Notes* words_ = nullptr;  ///< pinned_'s
  CudaStream stream_;       ///< highest priority: runs where others wait
  CudaStream others_;       ///< to other ranks, once there is something to tell
  Notes found_{};
  double waited_s_ = 0;
  Stranger stranger_;
  std::map<std::uint32_t, std::vector<DeviceLink::Signal>> expected_;  ///< by pass
  std::atomic<bool> fired_{false};
  mutable std::mutex mutex_;
  /// Of what is copied: a copy may be long under way, and callers do not wait for it.
  mutable std::mutex reading_;
  std::condition_variable wake_;
  std::function<void()> let_go_;
  bool stop_ = false;
  bool asked_ = false;  ///< let_go()
  std::thread thread_;
};

}  // namespace annulus::comm::peer
