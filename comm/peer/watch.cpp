#include "comm/peer/watch.h"

#include "comm/device/queues.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <optional>
#include <utility>

namespace annulus::comm::peer {
namespace {

constexpr double kTellWithinS = 0.05;

}  // namespace

/// Mapped host memory: what streams say, what is copied from the device, and what to it.
struct Watch::Pinned {
  Notes notes;
  alignas(128) std::uint32_t read[32];
  alignas(128) std::uint32_t raised[ControlBlock::kSignalsOfRank];
  std::uint32_t gave_up;  ///< what abort words become; behind `raised`, as in a control block
};

Watch::Watch(int rank, int device, std::vector<ControlBlock> blocks, double timeout_s, int queues)
    : rank_(rank),
      device_(device),
      blocks_(std::move(blocks)),
      timeout_s_(timeout_s),
      notes_on_host_(queues < kStreamsARank) {
  const DeviceScope scope(device);
  void* pinned = nullptr;
  check_cuda(cudaHostAlloc(&pinned, sizeof *pinned_, cudaHostAllocMapped | cudaHostAllocPortable),
             "cudaHostAlloc");
  pinned_ = new (pinned) Pinned{};
  pinned_->gave_up = static_cast<std::uint32_t>(rank) + 1;
  std::memset(pinned_->raised, kRaisedByte, sizeof pinned_->raised);
  words_ = &pinned_->notes;
  stream_ = make_urgent_stream();
  thread_ = std::thread([this] { look(); });
}

Watch::~Watch() {
  {
    const std::scoped_lock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  stream_ = CudaStream();
  others_ = CudaStream();
  if (pinned_ != nullptr) (void)cudaFreeHost(pinned_);
}

template <std::size_t kCount>
std::array<std::uint32_t, kCount> Watch::read_words(const std::uint32_t* words) const {
  static_assert(kCount * sizeof *words <= sizeof pinned_->read);
  const std::scoped_lock lock(reading_);
  const DeviceScope scope(device_);
  std::array<std::uint32_t, kCount> copy;
  check_cuda(
      cudaMemcpyAsync(pinned_->read, words, sizeof copy, cudaMemcpyDeviceToHost, stream_.get()),
      "read of a signal");
  check_cuda(cudaStreamSynchronize(stream_.get()), "read of a signal");
  std::memcpy(copy.data(), pinned_->read, sizeof copy);
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

/// Others first: before a stream of ours goes on, and gives them what is void. The abort word lies
/// behind the signals: copies of as many bytes are copy engines' in any case.
void Watch::release() {
  static_assert(offsetof(Pinned, gave_up) == offsetof(Pinned, raised) + sizeof Pinned::raised);
  const std::scoped_lock lock(mutex_);
  const DeviceScope scope(device_);
  tell_others();
  if (cudaStreamQuery(stream_.get()) == cudaErrorNotReady) return;  // the last time's: soon again
  const int last = static_cast<int>(blocks_.size()) - 1;
  for (int r = 0; r <= last; ++r) {
    const std::size_t abort = r == last ? sizeof pinned_->gave_up : 0;
    check_cuda(cudaMemcpyAsync(own().signals_of(r), pinned_->raised, sizeof pinned_->raised + abort,
                               cudaMemcpyHostToDevice, stream_.get()),
               "raise of all signals");
  }
}

/// On a stream made when it is needed: should these copies stand behind others, ours go on, and
/// other ranks have deadlines of their own.
void Watch::tell_others() {
  if (blocks_.size() == 1) return;
  if (others_.get() == nullptr) others_ = make_urgent_stream();
  if (cudaStreamQuery(others_.get()) == cudaErrorNotReady) return;
  for (const ControlBlock& block : blocks_) {
    if (!block || block.abort() == own().abort()) continue;
    check_cuda(cudaMemcpyAsync(block.abort(), &pinned_->gave_up, sizeof pinned_->gave_up,
                               cudaMemcpyDefault, others_.get()),
               "raise of abort words");
  }
  const Deadline deadline(kTellWithinS);
  while (cudaStreamQuery(others_.get()) == cudaErrorNotReady && !deadline.expired()) {
    std::this_thread::sleep_for(std::chrono::microseconds(100));
  }
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
