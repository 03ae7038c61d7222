#pragma once

#include "attention/execute/item_ranges.h"
#include "attention/execute/launches.h"
#include "attention/execute/memory.h"
#include "comm/transport.h"

#include <annulus/attention.h>
#include <annulus/plan.h>
#include <annulus/trace.h>

#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus::attn {

enum class ExecuteMode : std::uint8_t {
  overlapped,      ///< transfers go on while kernels compute
  blocking,        ///< transfers start only when nothing can be computed: to compare with
  transfers_alone  ///< nothing computes at all: results are void
};

struct ExecuteOptions {
  int threads = 1;
  double timeout_s = 60.0;
  std::span<std::byte> workspace{};
};

/// Plays one rank's plan on host memory: starts each transfer as soon as its waits are over, runs
/// the first ready compute item, and lets the transport progress between tiles. Knows items, not
/// algorithms. Allocates nothing in run().
class Executor {
 public:
  Executor(const RankPlan& plan, std::uint32_t plan_hash, const Launches& launches,
           comm::Transport& transport, const ExecuteOptions& options);

  /// Throws Timeout, naming rank and item, when nothing completes for timeout_s while waiting.
  /// `samples`: by item, of which begin and end are noted; empty: nothing is.
  CallStats run(const Memory& memory, ExecuteMode mode, std::span<ItemSample> samples = {});

 private:
  struct Flight {
    std::int32_t item;
    comm::Transport::Ticket ticket;
  };

  void play();
  void reset(const Memory& memory, ExecuteMode mode);
  void enqueue(std::int32_t item);
  void start_held();
  void start_transfer(std::int32_t item);
  void note_begin(std::int32_t item);
  void complete(std::int32_t item);
  bool poll();
  void poll_between_tiles();
  void compute(std::int32_t item);
  void wait();
  std::int32_t present() const;
  std::int32_t awaited() const;
  [[noreturn]] void time_out(double waited_s) const;

  const RankPlan& plan_;
  const Launches& launches_;
  comm::Transport& transport_;
  ExecuteOptions options_;
  std::int32_t tag_base_;
  std::vector<std::int32_t> dependents_;        ///< of all items, one after the other
  std::vector<std::int32_t> dependents_begin_;  ///< by item, and the end
  std::vector<std::int32_t> pending_;           ///< waits that are not over, by item
  std::vector<std::int32_t> ready_;  ///< compute items, a heap: first in plan order on top
  std::vector<Flight> flights_;
  std::vector<std::int32_t> held_;  ///< transfers that may start, blocking mode
  std::int32_t computing_ = -1;     ///< -1: none
  std::size_t completed_ = 0;
  std::chrono::steady_clock::time_point last_poll_{};
  const Memory* memory_ = nullptr;
  ExecuteMode mode_ = ExecuteMode::overlapped;
  LaunchContext context_;
  CallStats stats_;
  std::span<ItemSample> samples_;
  ItemRanges ranges_;
};

}  // namespace annulus::attn
