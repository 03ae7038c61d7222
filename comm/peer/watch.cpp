#include "comm/peer/watch.h"

#include "comm/device/queues.h"
#include "comm/peer/stream_ops.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <optional>
#include <utility>

namespace annulus::comm::peer {
namespace {

// Of pinned memory: the streams' words, then what is copied from the device.
constexpr std::size_t kPinnedBytes = 256;
constexpr std::size_t kCopyAt = 128;

}  // namespace

Watch::Watch(const Driver& driver, int rank, int device, std::vector<ControlBlock> blocks,
             double timeout_s, int queues)
    : driver_(driver),
      rank_(rank),
      device_(device),
      blocks_(std::move(blocks)),
      timeout_s_(timeout_s),
      notes_on_host_(queues < kStreamsARank) {
  const DeviceScope scope(device);
  void* pinned = nullptr;
  check_cuda(cudaHostAlloc(&pinned, kPinnedBytes, cudaHostAllocMapped | cudaHostAllocPortable),
             "cudaHostAlloc");
  std::memset(pinned, 0, kPinnedBytes);
  words_ = static_cast<Notes*>(pinned);
  word_copy_ = reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(pinned) + kCopyAt);
  int least = 0;
  int greatest = 0;
  check_cuda(cudaDeviceGetStreamPriorityRange(&least, &greatest), "stream priorities");
  check_cuda(cudaStreamCreateWithPriority(&stream_, cudaStreamNonBlocking, greatest),
             "cudaStreamCreateWithPriority");
  thread_ = std::thread([this] { look(); });
}

Watch::~Watch() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  if (stream_ != nullptr) (void)cudaStreamDestroy(stream_);
  if (words_ != nullptr) (void)cudaFreeHost(words_);
}

template <std::size_t kCount>
std::array<std::uint32_t, kCount> Watch::read_words(const std::uint32_t* words) const {
  static_assert(kCount * sizeof *words <= kPinnedBytes - kCopyAt);
  const std::scoped_lock lock(reading_);
  const DeviceScope scope(device_);
  std::array<std::uint32_t, kCount> copy;
  check_cuda(cudaMemcpyAsync(word_copy_, words, sizeof copy, cudaMemcpyDeviceToHost, stream_),
             "read of a signal");
  check_cuda(cudaStreamSynchronize(stream_), "read of a signal");
  std::memcpy(copy.data(), word_copy_, sizeof copy);
  return copy;
}

bool Watch::aborted() const { return read_words<1>(own().abort())[0] != 0; }

Notes Watch::host_notes() const {
  const volatile Notes* words = words_;
  return {words->calls, words->pass, {words->awaited[0], words->awaited[1]}};
}

Seen Watch::see() const {
  return look_at([&] { return host_notes(); },
                 [&] { return read_words<ControlBlock::kToldWords>(own().abort()); },
                 notes_on_host_);
}

void Watch::expect(std::uint32_t pass, std::vector<DeviceLink::Signal> signals) {
  const std::scoped_lock lock(mutex_);
  expected_[pass] = std::move(signals);
}

void Watch::forget(std::uint32_t pass) {
  const std::scoped_lock lock(mutex_);
  expected_.erase(pass);
}

Watch::Stranger Watch::find_stranger(const Notes& now) const {
  for (const std::uint32_t awaited : now.awaited) {
    DeviceLink::Signal signal;
    {
      const std::scoped_lock lock(mutex_);
      const auto pass = expected_.find(now.pass);
      if (awaited == 0 || pass == expected_.end() || awaited > pass->second.size()) continue;
      signal = pass->second[awaited - 1];
    }
    if (signal.word == nullptr) continue;
    const std::uint32_t value = read_words<1>(signal.word)[0];
    if (value != 0 && value != signal.value) return {awaited - 1, value, signal.value};
  }
  return {};
}

void Watch::release() const {
  const std::scoped_lock lock(mutex_);
  const DeviceScope scope(device_);
  for (const ControlBlock& block : blocks_) {
    if (!block) continue;
    StreamBatch abort(driver_, stream_);
    abort.write(block.abort(), static_cast<std::uint32_t>(rank_) + 1);
    abort.enqueue();
  }
  check_cuda(cudaMemsetAsync(own().signals(), kRaisedByte,
                             static_cast<std::size_t>(own().signal_words()) * 4, stream_),
             "raise of all signals");
}

void Watch::let_go() noexcept {
  {
    const std::scoped_lock lock(mutex_);
    asked_ = true;
  }
  wake_.notify_all();
}

void Watch::fire(const Notes& now) noexcept {
  if (!fired()) {
    found_ = now;
    fired_.store(true, std::memory_order_release);  // after what callers read once it is set
  }
  try {
    release();
  } catch (...) {
    // The device is gone: so are its streams.
  }
  if (let_go_) let_go_();
}

Seen Watch::see_if_alive() const noexcept {
  try {
    return see();
  } catch (...) {
    return {host_notes(), false};  // the device is gone: calls say so
  }
}

Watch::Stranger Watch::find_stranger_if_alive(const Notes& now) const noexcept {
  try {
    return find_stranger(now);
  } catch (...) {
    return {};  // the device is gone: calls say so
  }
}

void Watch::look() {
  // Whoever captures a graph meanwhile does not mind the copies.
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  (void)cudaThreadExchangeStreamCaptureMode(&mode);
  const double period = std::clamp(timeout_s_ / 20, 0.005, 0.25);
  Notes last{};
  Stranger suspect;
  std::optional<Deadline> deadline;
  for (;;) {
    bool asked = false;
    {
      std::unique_lock lock(mutex_);
      const auto called = [&] { return stop_ || (asked_ && !fired()); };
      wake_.wait_for(lock, std::chrono::duration<double>(period), called);
      if (stop_) return;
      asked = asked_;
    }
    if (fired()) {
      fire(found_);  // calls that were enqueued behind wait again
      continue;
    }
    if (!asked && blocks_.size() == 1) continue;
    const Seen seen = see_if_alive();
    const Notes& now = seen.notes;
    if (asked || (now.waits() && seen.told)) {
      fire(now);
      continue;
    }
    if (!now.waits() || !(now == last)) {
      last = now;
      suspect = {};
      deadline.reset();
      continue;
    }
    // Twice at the same wait: what a stream has just passed may already be the next call's.
    const Stranger stranger = find_stranger_if_alive(now);
    if (stranger.found != 0 && stranger.found == suspect.found && now == see_if_alive().notes) {
      stranger_ = stranger;
      fire(now);
      continue;
    }
    suspect = stranger;
    if (!deadline) deadline.emplace(timeout_s_);
    if (!deadline->expired()) continue;
    waited_s_ = deadline->elapsed_s();
    fire(now);
  }
}

}  // namespace annulus::comm::peer
