#include "comm/peer/watch.h"

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

Watch::Words read(const volatile Watch::Words* words) {
  return {words->calls, words->pass, {words->awaited[0], words->awaited[1]}};
}

bool waits(const Watch::Words& w) { return w.awaited[0] != 0 || w.awaited[1] != 0; }

bool same(const Watch::Words& a, const Watch::Words& b) {
  return std::memcmp(&a, &b, sizeof a) == 0;
}

}  // namespace

Watch::Watch(const Driver& driver, int rank, int device, std::vector<ControlBlock> blocks,
             double timeout_s)
    : driver_(driver),
      rank_(rank),
      device_(device),
      blocks_(std::move(blocks)),
      timeout_s_(timeout_s) {
  const DeviceScope scope(device);
  void* pinned = nullptr;
  check_cuda(cudaHostAlloc(&pinned, 256, cudaHostAllocMapped | cudaHostAllocPortable),
             "cudaHostAlloc");
  std::memset(pinned, 0, 256);
  words_ = static_cast<Words*>(pinned);
  word_copy_ = reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(pinned) + 128);
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

std::uint32_t Watch::read_word(const std::uint32_t* word) const {
  const std::scoped_lock lock(mutex_);
  const DeviceScope scope(device_);
  check_cuda(cudaMemcpyAsync(word_copy_, word, sizeof *word, cudaMemcpyDeviceToHost, stream_),
             "read of a signal");
  check_cuda(cudaStreamSynchronize(stream_), "read of a signal");
  return *word_copy_;
}

bool Watch::aborted() const {
  return read_word(blocks_[static_cast<std::size_t>(rank_)].abort()) != 0;
}

void Watch::expect(std::uint32_t pass, std::vector<DeviceLink::Signal> signals) {
  const std::scoped_lock lock(mutex_);
  expected_[pass] = std::move(signals);
}

void Watch::forget(std::uint32_t pass) {
  const std::scoped_lock lock(mutex_);
  expected_.erase(pass);
}

Watch::Stranger Watch::find_stranger(const Words& now) const {
  for (const std::uint32_t awaited : now.awaited) {
    DeviceLink::Signal signal;
    {
      const std::scoped_lock lock(mutex_);
      const auto pass = expected_.find(now.pass);
      if (awaited == 0 || pass == expected_.end() || awaited > pass->second.size()) continue;
      signal = pass->second[awaited - 1];
    }
    if (signal.word == nullptr) continue;
    const std::uint32_t value = read_word(signal.word);
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
  const ControlBlock& own = blocks_[static_cast<std::size_t>(rank_)];
  check_cuda(cudaMemsetAsync(own.signals(), kRaisedByte,
                             static_cast<std::size_t>(own.signal_words()) * 4, stream_),
             "raise of all signals");
}

void Watch::let_go() noexcept {
  {
    const std::scoped_lock lock(mutex_);
    asked_ = true;
  }
  wake_.notify_all();
}

void Watch::fire() noexcept {
  if (!fired()) {
    found_ = read(words_);
    fired_.store(true, std::memory_order_release);  // after what callers read once it is set
  }
  try {
    release();
  } catch (...) {
    // The device is gone: so are its streams.
  }
  if (let_go_) let_go_();
}

bool Watch::told_to_stop() const noexcept {
  try {
    return aborted();
  } catch (...) {
    return false;  // the device is gone: calls say so
  }
}

Watch::Stranger Watch::find_stranger_if_alive(const Words& now) const noexcept {
  try {
    return find_stranger(now);
  } catch (...) {
    return {};  // the device is gone: calls say so
  }
}

void Watch::look() {
  const double period = std::clamp(timeout_s_ / 20, 0.005, 0.25);
  Words last = read(words_);
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
    if (asked || fired()) {
      fire();  // calls that were enqueued behind wait again
      continue;
    }
    const Words now = read(words_);
    if (waits(now) && told_to_stop()) {
      fire();
      continue;
    }
    if (!waits(now) || !same(now, last)) {
      last = now;
      suspect = {};
      deadline.reset();
      continue;
    }
    // Twice at the same wait: what a stream has just passed may already be the next call's.
    const Stranger seen = find_stranger_if_alive(now);
    if (seen.found != 0 && seen.found == suspect.found && same(now, read(words_))) {
      stranger_ = seen;
      fire();
      continue;
    }
    suspect = seen;
    if (!deadline) deadline.emplace(timeout_s_);
    if (!deadline->expired()) continue;
    waited_s_ = deadline->elapsed_s();
    fire();
  }
}

}  // namespace annulus::comm::peer
