#include "runtime/engine/stream_gate.h"

#include "comm/peer/stream_ops.h"
#include "runtime/base/cuda_check.h"

#include <atomic>

namespace annulus::engine {

StreamGate::StreamGate() : driver_(comm::peer::Driver::load()) {
  void* word = nullptr;
  check_cuda(cudaHostAlloc(&word, sizeof *word_, cudaHostAllocMapped), "cudaHostAlloc");
  word_ = static_cast<std::uint32_t*>(word);
  *word_ = 0;
}

StreamGate::~StreamGate() { (void)cudaFreeHost(word_); }

void StreamGate::hold(cudaStream_t stream) const {
  comm::peer::StreamBatch wait(driver_, stream);
  wait.consume(word_, 1);
  wait.enqueue();
}

void StreamGate::open() const { std::atomic_ref(*word_).store(1, std::memory_order_release); }

}  // namespace annulus::engine
