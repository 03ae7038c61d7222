#include "attention/execute/executor.h"

#include "attention/execute/row_ops.h"
#include "comm/backoff.h"
#include "runtime/base/clock.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

namespace annulus::attn {
namespace {

/// Transfers of different plans that meet by a caller's mistake must not match: Open MPI writes
/// past a receive buffer that is too small. So a tag carries bits of its plan's hash.
constexpr std::uint32_t kHashBits = 0x7fff;
constexpr int kTagBits = 16;

// Between polls from inside a kernel. Open MPI moves strided regions about 100 KB a poll.
constexpr auto kPollGap = std::chrono::microseconds(50);

}  // namespace

Executor::Executor(const RankPlan& plan, std::uint32_t plan_hash, const Launches& launches,
                   comm::Transport& transport, const ExecuteOptions& options)
    : plan_(plan),
      launches_(launches),
      transport_(transport),
      options_(options),
      tag_base_(static_cast<std::int32_t>((plan_hash & kHashBits) << kTagBits)),
      ranges_(plan) {
  const std::size_t n = plan.items.size();
  std::vector<std::vector<std::int32_t>> lists(n);
  for (std::size_t i = 0; i < n; ++i) {
    for (const std::int32_t w : plan.waits(plan.items[i])) {
      lists[static_cast<std::size_t>(w)].push_back(static_cast<std::int32_t>(i));
    }
  }
  for (const auto& list : lists) {
    dependents_begin_.push_back(static_cast<std::int32_t>(dependents_.size()));
    dependents_.insert(dependents_.end(), list.begin(), list.end());
  }
  dependents_begin_.push_back(static_cast<std::int32_t>(dependents_.size()));
  pending_.resize(n);
  ready_.reserve(n);
  flights_.reserve(n);
  held_.reserve(n);
  for (const Transfer& t : plan.transfers) {
    if (t.tag >> kTagBits != 0) {
      throw Unsupported(fmt::format("rank {}: {} transfers with rank {}, at most {} in one plan",
                                    plan.rank, t.tag + 1, t.peer, 1 << kTagBits));
    }
  }
  context_.threads = options.threads;
  context_.workspace = options.workspace;
}

CallStats Executor::run(const Memory& memory, ExecuteMode mode, std::span<ItemSample> samples) {
  const Deadline clock(options_.timeout_s);
  const std::int64_t sent = transport_.bytes_sent();
  samples_ = samples;
  reset(memory, mode);
  try {
    play();
  } catch (const CommError& error) {
    // Another rank failed, or this one was told to stop: say where this one stood.
    throw CommError(
        fmt::format("{}; this rank was at {}", error.what(), describe(plan_, present())));
  }
  stats_.total_s = clock.elapsed_s();
  stats_.bytes_sent = transport_.bytes_sent() - sent;
  return stats_;
}

void Executor::play() {
  while (completed_ < plan_.items.size()) {
    poll();
    if (ready_.empty()) {
      start_held();
      if (ready_.empty() && completed_ < plan_.items.size()) wait();
      continue;
    }
    std::pop_heap(ready_.begin(), ready_.end(), std::greater<>());
    computing_ = ready_.back();
    ready_.pop_back();
    note_begin(computing_);
    compute(computing_);
    complete(std::exchange(computing_, -1));
  }
}

void Executor::reset(const Memory& memory, ExecuteMode mode) {
  memory_ = &memory;
  mode_ = mode;
  stats_ = {};
  completed_ = 0;
  ready_.clear();
  flights_.clear();
  held_.clear();
  computing_ = -1;
  context_.flops = &stats_.flops;
  context_.poll = nullptr;
  if (mode == ExecuteMode::overlapped) context_.poll = [this] { poll_between_tiles(); };
  for (std::size_t i = 0; i < plan_.items.size(); ++i) pending_[i] = plan_.items[i].waits.count;
  // The previous call is over on this rank, so waits_previous hold.
  for (std::size_t i = 0; i < plan_.items.size(); ++i) {
    if (plan_.items[i].waits.count == 0) enqueue(static_cast<std::int32_t>(i));
  }
}

void Executor::enqueue(std::int32_t item) {
  if (plan_.items[static_cast<std::size_t>(item)].kind == ItemKind::transfer) {
    if (mode_ == ExecuteMode::blocking) {
      held_.push_back(item);
    } else {
      start_transfer(item);
    }
    return;
  }
  ready_.push_back(item);
  std::push_heap(ready_.begin(), ready_.end(), std::greater<>());
}

/// Blocking mode: transfers start only when nothing is left to compute.
void Executor::start_held() {
  for (const std::int32_t item : held_) start_transfer(item);
  held_.clear();
}

void Executor::start_transfer(std::int32_t item) {
  const Item& it = plan_.items[static_cast<std::size_t>(item)];
  const Transfer& t = plan_.transfers[static_cast<std::size_t>(it.payload)];
  const HostRange range(ranges_.of(item));
  note_begin(item);
  comm::TransferEnd end;
  end.sends = t.sends;
  end.peer = t.peer;
  end.tag = tag_base_ | t.tag;
  end.region = memory_->region(t.block);
  flights_.push_back({item, transport_.start(end)});
}

void Executor::note_begin(std::int32_t item) {
  if (samples_.empty()) return;
  const double now = monotonic_s();
  samples_[static_cast<std::size_t>(item)] = {item, false, now, now, now};
}

void Executor::complete(std::int32_t item) {
  ++completed_;
  const auto i = static_cast<std::size_t>(item);
  if (!samples_.empty()) samples_[i].end_s = monotonic_s();
  for (std::int32_t d = dependents_begin_[i]; d < dependents_begin_[i + 1]; ++d) {
    const std::int32_t next = dependents_[static_cast<std::size_t>(d)];
    if (--pending_[static_cast<std::size_t>(next)] == 0) enqueue(next);
  }
}

/// True if a transfer completed.
bool Executor::poll() {
  if (flights_.empty()) return false;
  transport_.progress();
  bool any = false;
  for (std::size_t f = 0; f < flights_.size();) {
    if (!transport_.done(flights_[f].ticket)) {
      ++f;
      continue;
    }
    const std::int32_t item = flights_[f].item;
    flights_[f] = flights_.back();
    flights_.pop_back();
    complete(item);
    any = true;
  }
  return any;
}

/// A poll costs about a microsecond, small tiles take little more.
void Executor::poll_between_tiles() {
  const auto now = std::chrono::steady_clock::now();
  if (now - last_poll_ < kPollGap) return;
  last_poll_ = now;
  poll();
}

void Executor::compute(std::int32_t item) {
  if (mode_ == ExecuteMode::transfers_alone) return;
  const HostRange range(ranges_.of(item));
  const Item& it = plan_.items[static_cast<std::size_t>(item)];
  const auto i = static_cast<std::size_t>(it.payload);
  switch (it.kind) {
    case ItemKind::attend:
      launches_.run(it.payload, *memory_, context_);
      break;
    case ItemKind::merge:
      run_merge(plan_.merges[i], *memory_);
      break;
    case ItemKind::reduce:
      run_reduce(plan_.reduces[i], *memory_);
      break;
    case ItemKind::prepare:
      run_prepare(plan_.prepares[i], *memory_);
      break;
    case ItemKind::transfer:
      break;
  }
}

/// Until a transfer completes. Time spent here is exposed communication.
void Executor::wait() {
  if (flights_.empty()) {
    throw Error(fmt::format("rank {}: the plan cannot go on, {} of {} items are done", plan_.rank,
                            completed_, plan_.items.size()));
  }
  const Deadline deadline(options_.timeout_s);
  comm::Backoff backoff;
  while (!poll()) {
    if (deadline.expired()) time_out(deadline.elapsed_s());
    transport_.rest(backoff);
  }
  stats_.exposed_s += deadline.elapsed_s();
}

/// The item that is being computed or waited for.
std::int32_t Executor::present() const {
  if (computing_ >= 0) return computing_;
  return flights_.empty() ? 0 : awaited();
}

/// The receive that is first in plan order says most about who is late.
std::int32_t Executor::awaited() const {
  const auto order = [&](const Flight& f) {
    const Item& it = plan_.items[static_cast<std::size_t>(f.item)];
    return std::pair(plan_.transfers[static_cast<std::size_t>(it.payload)].sends, f.item);
  };
  return std::min_element(flights_.begin(), flights_.end(),
                          [&](const Flight& a, const Flight& b) { return order(a) < order(b); })
      ->item;
}

void Executor::time_out(double waited_s) const {
  throw Timeout(
      fmt::format("{} did not complete in {:.1f} s", describe(plan_, awaited()), waited_s));
}

}  // namespace annulus::attn
