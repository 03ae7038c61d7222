#pragma once

#include "runtime/base/device_buffer.h"

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

namespace annulus {

class WordPool;

/// Words of a WordPool, which must outlive it.
class PoolWords {
 public:
  PoolWords() = default;
  PoolWords(PoolWords&& other) noexcept { swap(other); }
  PoolWords& operator=(PoolWords&& other) noexcept {
    swap(other);
    return *this;
  }
  ~PoolWords();

  std::uint32_t* data() const { return words_.data(); }
  std::int64_t bytes() const { return static_cast<std::int64_t>(words_.size_bytes()); }

 private:
  friend class WordPool;
  PoolWords(WordPool& pool, std::span<std::uint32_t> words) : pool_(&pool), words_(words) {}
  void swap(PoolWords& other) noexcept {
    std::swap(pool_, other.pool_);
    std::swap(words_, other.words_);
  }

  WordPool* pool_ = nullptr;
  std::span<std::uint32_t> words_;
};

/// Words of one GPU that streams write and wait for. Memory of a cudaMemPool_t will not do: such
/// operations refuse it (cuStreamBatchMemOp: CUDA_ERROR_INVALID_VALUE, seen with driver 580).
/// Chunks of cudaMalloc, which waits for the device, are cut up instead: one is made where there is
/// no room, the first by a session before anything runs.
///
/// Words that were given back are taken again at once: whoever takes them writes them in order of
/// the stream on which those before were last used, as DevicePool has it.
class WordPool {
 public:
  static constexpr std::int64_t kChunk = std::int64_t{1} << 18;  ///< words: 1 MiB
  static constexpr std::int64_t kStep = 64;                      ///< words: DevicePool::kAlign

  WordPool() = default;
  WordPool(const WordPool&) = delete;
  WordPool& operator=(const WordPool&) = delete;

  /// On the current device. A multiple of kStep, not initialised.
  PoolWords take(std::int64_t count);

 private:
  friend class PoolWords;
  void give_back(std::span<std::uint32_t> words) noexcept;

  std::vector<DeviceBuffer> chunks_;
  std::map<std::uint32_t*, std::int64_t> free_;  ///< begin, words
};

}  // namespace annulus
