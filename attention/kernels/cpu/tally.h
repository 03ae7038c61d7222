#pragma once

#include "attention/kernels/params.h"
#include "runtime/base/parallel_for.h"

#include <atomic>
#include <cstdint>

namespace annulus::attn::cpu {

/// What a unit of work counts: FLOPs where it calls a tile product; bytes where its loop reads or
/// writes an operand or a temporary that the algorithm materialises (not the blocks it works in).
struct Tally {
  std::int64_t flops = 0;
  std::int64_t bytes = 0;
};

/// The launch's poll on the calling thread, nothing on others.
class Poller {
 public:
  Poller(const LaunchContext& context, int thread)
      : poll_(thread == 0 && context.poll ? &context.poll : nullptr) {}
  void operator()() const {
    if (poll_ != nullptr) (*poll_)();
  }

 private:
  const std::function<void()>* poll_;
};

/// parallel_for over `count` units: body(thread, unit, tally, poll); what they tally is summed up
/// for the caller.
template <typename Body>
void run_units(const LaunchContext& context, std::int64_t count, Body&& body) {
  std::atomic<std::int64_t> flops{0}, bytes{0};
  parallel_for(context.threads, count, context.poll, [&](int thread, std::int64_t unit) {
    Tally tally;
    body(thread, unit, tally, Poller(context, thread));
    flops += tally.flops;
    bytes += tally.bytes;
  });
  if (context.flops != nullptr) *context.flops += flops;
  if (context.traffic_bytes != nullptr) *context.traffic_bytes += bytes;
}

}  // namespace annulus::attn::cpu
