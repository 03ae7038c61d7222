#pragma once

#include "runtime/base/cuda_handles.h"

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

namespace annulus {

class DevicePool;

/// Memory of a DevicePool, which must outlive it. Given back in order of the pool's stream.
class PoolBuffer {
 public:
  PoolBuffer() = default;
  PoolBuffer(PoolBuffer&& other) noexcept { swap(other); }
  PoolBuffer& operator=(PoolBuffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~PoolBuffer();

  std::byte* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  friend class DevicePool;
  PoolBuffer(DevicePool& pool, std::byte* data, std::int64_t bytes)
      : pool_(&pool), data_(data), bytes_(bytes) {}
  void swap(PoolBuffer& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
  }

  DevicePool* pool_ = nullptr;
  std::byte* data_ = nullptr;
  std::int64_t bytes_ = 0;
};

/// Memory of one GPU for what is bound while others run: taken, filled and given back in order of
/// one stream, so that nobody waits. cudaMalloc, cudaMemcpy and cudaFree wait for the device. What
/// was given back stays here and is taken again; only where more is wanted than ever before the
/// driver maps more, without waiting for what runs.
///
/// Uploads go through blocks of pinned memory. A block is free again when its upload is over, which
/// may stand behind calls that wait for other ranks; so where none is free another one is made. The
/// host runs ahead of the GPU by some hundred launches at most, which bounds them; beyond
/// kMostStaged bytes an upload is awaited instead.
///
/// What uploads is a kernel that reads pinned memory. A copy would stand in the queue of a copy
/// engine, behind whatever its stream waits for, and where there is one queue, so would those of
/// the watch that end such waits.
class DevicePool {
 public:
  static constexpr std::int64_t kMostStaged = std::int64_t{1} << 30;
  static constexpr std::int64_t kAlign = 256;

  /// Enqueues a copy of `bytes`, a multiple of kAlign, as a kernel.
  using Upload = void (*)(std::byte* to, std::byte* from, std::int64_t bytes, cudaStream_t stream);

  /// On the current device. `stream` must outlive this. `timeout_s`: of waits for a block.
  DevicePool(cudaStream_t stream, double timeout_s, Upload upload);
  DevicePool(const DevicePool&) = delete;
  DevicePool& operator=(const DevicePool&) = delete;
  /// All buffers are gone, and what was enqueued on the stream is over.
  ~DevicePool();

  /// A multiple of kAlign at least as large, not initialised; on the stream from here on. Throws
  /// DeviceError that says how much was asked for and how much is free, and Unsupported while a
  /// graph captures the stream.
  PoolBuffer take(std::int64_t bytes);

  /// Host memory for the next send(), not initialised.
  std::span<std::byte> stage(std::int64_t bytes);
  /// Uploads all that was staged, in order of the stream. Waits for nothing.
  void send(std::byte* to);

  /// Room for as much again as is taken now, at least `bytes`, and for as many uploads again as
  /// there were blocks, each as large as the largest. It is a session that calls this.
  void reserve(std::int64_t bytes);

  std::int64_t taken() const { return taken_; }

 private:
  friend class PoolBuffer;

  struct PinnedTraits {
    using Type = std::byte*;
    static Type null() { return nullptr; }
    static void close(Type data) noexcept { (void)cudaFreeHost(data); }
  };
  struct Block {
    UniqueHandle<PinnedTraits> memory;
    std::int64_t bytes = 0;
    CudaEvent over;  ///< of its last upload
    bool sent = false;
  };
  struct MemPoolTraits {
    using Type = cudaMemPool_t;
    static Type null() { return nullptr; }
    static void close(Type pool) noexcept { (void)cudaMemPoolDestroy(pool); }
  };

  void give_back(std::byte* data, std::int64_t bytes) noexcept;
  void free_deferred();
  bool is_free(Block& block) const;
  Block& block_for(std::int64_t bytes);
  Block& add_block(std::int64_t bytes);

  int device_ = 0;
  cudaStream_t stream_;
  double timeout_s_;
  Upload upload_;
  UniqueHandle<MemPoolTraits> pool_;
  std::int64_t taken_ = 0;
  std::vector<std::byte*> deferred_;  ///< given back while a graph captured the stream
  std::vector<Block> blocks_;
  std::size_t staged_in_ = 0;
  std::int64_t staged_ = 0;  ///< bytes for send()
};

/// Until the event has passed; throws Timeout that says `what` did not end. The host polls, so that
/// a wait that never ends does not hold it.
void await_event(cudaEvent_t event, double timeout_s, const char* what);

}  // namespace annulus
