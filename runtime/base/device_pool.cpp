#include "runtime/base/device_pool.h"

#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/relaxed_capture.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <thread>

namespace annulus {
namespace {

constexpr std::int64_t kBlockStep = 256 << 10;

std::int64_t padded(std::int64_t bytes, std::int64_t step) {
  return (bytes + step - 1) / step * step;
}

[[noreturn]] void throw_no_memory(cudaError_t code, std::int64_t bytes) {
  (void)cudaGetLastError();
  std::size_t free = 0;
  std::size_t total = 0;
  (void)cudaMemGetInfo(&free, &total);
  throw DeviceError(fmt::format("cudaMallocFromPoolAsync of {} bytes: {}; {} of {} bytes are free",
                                bytes, cudaGetErrorString(code), free, total));
}

}  // namespace

PoolBuffer::~PoolBuffer() {
  if (data_ != nullptr) pool_->give_back(data_, bytes_);
}

DevicePool::DevicePool(cudaStream_t stream, double timeout_s, Upload upload)
    : stream_(stream), timeout_s_(timeout_s), upload_(upload) {
  check_cuda(cudaGetDevice(&device_), "cudaGetDevice");
  cudaMemPoolProps props{};
  props.allocType = cudaMemAllocationTypePinned;  // in the GPU: the only kind there is
  props.location = {cudaMemLocationTypeDevice, device_};
  check_cuda(cudaMemPoolCreate(pool_.out(), &props), "cudaMemPoolCreate");
  std::uint64_t keep_all = UINT64_MAX;
  check_cuda(cudaMemPoolSetAttribute(pool_.get(), cudaMemPoolAttrReleaseThreshold, &keep_all),
             "cudaMemPoolSetAttribute");
}

DevicePool::~DevicePool() {
  try {
    free_deferred();
  } catch (...) {
    // goes with the pool, or with the process
  }
}

PoolBuffer DevicePool::take(std::int64_t bytes) {
  if (bytes == 0) return {};
  if (is_capturing(stream_)) {
    throw Unsupported(
        "an attention cannot be made while a graph captures calls of its session: make it before");
  }
  free_deferred();
  bytes = padded(bytes, kAlign);
  void* data = nullptr;
  const cudaError_t code =
      cudaMallocFromPoolAsync(&data, static_cast<std::size_t>(bytes), pool_.get(), stream_);
  if (code != cudaSuccess) throw_no_memory(code, bytes);
  taken_ += bytes;
  return {*this, static_cast<std::byte*>(data), bytes};
}

void DevicePool::give_back(std::byte* data, std::int64_t bytes) noexcept {
  taken_ -= bytes;
  try {
    const DeviceScope scope(device_);
    const RelaxedCapture relaxed;
    if (is_capturing(stream_)) return deferred_.push_back(data);
    check_cuda(cudaFreeAsync(data, stream_), "cudaFreeAsync");
  } catch (...) {
    // goes with the pool, or with the process
  }
}

void DevicePool::free_deferred() {
  if (deferred_.empty() || is_capturing(stream_)) return;
  for (std::byte* data : deferred_) (void)cudaFreeAsync(data, stream_);
  deferred_.clear();
}

bool DevicePool::is_free(Block& block) const {
  if (!block.sent) return true;
  const cudaError_t code = cudaEventQuery(block.over.get());
  if (code == cudaErrorNotReady) {
    (void)cudaGetLastError();
    return false;
  }
  check_cuda(code, "an upload");
  block.sent = false;
  return true;
}

DevicePool::Block& DevicePool::add_block(std::int64_t bytes) {
  Block block;
  block.bytes = padded(bytes, kBlockStep);
  void* memory = nullptr;
  check_cuda(cudaHostAlloc(&memory, static_cast<std::size_t>(block.bytes),
                           cudaHostAllocPortable | cudaHostAllocMapped),
             "cudaHostAlloc of an upload");
  block.memory.reset(static_cast<std::byte*>(memory));
  block.over = make_event();
  return blocks_.emplace_back(std::move(block));
}

/// The smallest that will do.
DevicePool::Block& DevicePool::block_for(std::int64_t bytes) {
  Block* best = nullptr;
  Block* busy = nullptr;
  std::int64_t all = 0;
  for (Block& block : blocks_) {
    all += block.bytes;
    if (block.bytes < bytes) continue;
    if (!is_free(block)) {
      busy = &block;
    } else if (best == nullptr || block.bytes < best->bytes) {
      best = &block;
    }
  }
  if (best != nullptr) return *best;
  if (busy == nullptr || all + bytes <= kMostStaged) return add_block(bytes);
  await_event(busy->over.get(), timeout_s_, "an upload of earlier lists");
  busy->sent = false;
  return *busy;
}

std::span<std::byte> DevicePool::stage(std::int64_t bytes) {
  staged_ = bytes;
  if (bytes == 0) return {};
  Block& block = block_for(bytes);
  staged_in_ = static_cast<std::size_t>(&block - blocks_.data());
  return {block.memory.get(), static_cast<std::size_t>(bytes)};
}

void DevicePool::send(std::byte* to) {
  if (staged_ == 0) return;
  Block& block = blocks_[staged_in_];
  block.sent = true;
  upload_(to, block.memory.get(), padded(staged_, kAlign), stream_);
  check_cuda(cudaEventRecord(block.over.get(), stream_), "cudaEventRecord");
  staged_ = 0;
}

void DevicePool::reserve(std::int64_t bytes) {
  (void)take(std::max(bytes, taken_ + kBlockStep));  // given back at once
  std::int64_t largest = 0;
  for (const Block& block : blocks_) largest = std::max(largest, block.bytes);
  for (std::size_t more = blocks_.size(); more > 0; --more) add_block(largest);
}

void await_event(cudaEvent_t event, double timeout_s, const char* what) {
  const RelaxedCapture relaxed;
  const Deadline deadline(timeout_s);
  for (cudaError_t code = cudaEventQuery(event); code != cudaSuccess;
       code = cudaEventQuery(event)) {
    if (code != cudaErrorNotReady) check_cuda(code, what);
    (void)cudaGetLastError();
    if (deadline.expired()) {
      throw Timeout(fmt::format("{} did not end in {:.1f} s", what, deadline.elapsed_s()));
    }
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
}

}  // namespace annulus
