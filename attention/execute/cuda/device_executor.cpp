#include "attention/execute/cuda/device_executor.h"

#include "attention/execute/cuda/device_ops.h"
#include "attention/execute/joined_prepares.h"
#include "runtime/base/cuda_check.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <exception>
#include <set>
#include <utility>

namespace annulus::attn {
namespace {

std::vector<TransferTraits> traits_of(const RankPlan& plan, const comm::DeviceLink& link) {
  std::vector<TransferTraits> traits;
  for (std::size_t i = 0; i < plan.transfers.size(); ++i) {
    const auto t = static_cast<std::int32_t>(i);
    traits.push_back({link.group_end(t), link.by_flag(t), link.beside_kernels(t)});
  }
  return traits;
}

std::span<const std::int32_t> listed(const std::vector<std::int32_t>& list, const Step& step) {
  return std::span(list).subspan(static_cast<std::size_t>(step.index),
                                 static_cast<std::size_t>(step.count));
}

}  // namespace

DeviceExecutor::DeviceExecutor(const RankPlan& plan, const DeviceLaunches& launches,
                               const comm::DeviceLink& link, std::span<std::byte> workspace,
                               const DeviceReport& report, cudaStream_t copies, bool deterministic,
                               int sm_limit)
    : plan_(plan),
      launches_(launches),
      link_(link),
      report_(report),
      traits_(traits_of(plan, link)),
      schedule_(make_schedule(plan, traits_)),
      joined_(joined_prepares(plan, schedule_)),
      ranges_(plan),
      item_of_(plan.transfers.size()),
      copy_(copies) {
  context_.workspace = workspace;
  context_.flops = report.words.flops;
  context_.abort = report.abort;
  context_.deterministic = deterministic;
  context_.sm_limit = sm_limit;
  report_.words.counters = launches.words();
  report_.words.counter_count = launches.word_count();
  for (std::size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].kind != ItemKind::transfer) continue;
    item_of_[static_cast<std::size_t>(plan.items[i].payload)] = static_cast<std::int32_t>(i);
  }
  alone_ = plan.transfers.empty();
  // There is nothing to count or to watch but FLOPs, which attends alone add.
  begins_with_attend_ = alone_ && launches.zero_flops();
  converts_early_ = alone_ && convert_may_overlap();
  begin_ = make_event();
  for (std::int32_t i = 0; i < schedule_.events; ++i) events_.push_back(make_event());
}

/// Which kernel of a file an attend takes may depend on its size: powers of two will do.
std::vector<std::int64_t> DeviceExecutor::kinds() const {
  std::set<std::int64_t> kinds;
  for (std::size_t s = 0; s < schedule_.steps.size(); ++s) {
    const Step& step = schedule_.steps[s];
    std::int64_t kind = joined_[s] > 1 ? 1 : 0;
    const auto add = [&](auto value) { kind = kind * 64 + static_cast<std::int64_t>(value); };
    add(step.kind);
    if (step.kind == Step::Kind::compute) {
      const Item& item = plan_.items[static_cast<std::size_t>(step.index)];
      const auto i = static_cast<std::size_t>(item.payload);
      add(item.kind);
      if (item.kind == ItemKind::prepare) add(plan_.prepares[i].kind);
      if (item.kind == ItemKind::attend) {
        const Attend& a = plan_.attends[i];
        for (const bool is :
             {a.resume, a.finish, a.dq_assign, a.dkv_assign, a.on_arrival, a.by_head, s == 0}) {
          kind = kind * 2 + (is ? 1 : 0);
        }
        add(std::bit_width(static_cast<std::uint64_t>(a.flops)));
      }
    }
    kinds.insert(kind);
  }
  kinds.insert({alone_ ? -1 : -2, begins_with_attend_ ? -3 : -4});
  return {kinds.begin(), kinds.end()};
}

/// A call that is captured into a graph, which is made ready and dropped. On the copy stream: a
/// stream of its own would take a hardware queue in turn.
void DeviceExecutor::rehearse(const Memory& memory) {
  check_cuda(cudaStreamBeginCapture(copy_, cudaStreamCaptureModeThreadLocal),
             "cudaStreamBeginCapture");
  std::exception_ptr error;
  try {
    enqueue(memory, copy_, DeviceMode::compute_alone);
  } catch (...) {
    error = std::current_exception();
  }
  cudaGraph_t graph = nullptr;
  const cudaError_t ended = cudaStreamEndCapture(copy_, &graph);
  if (error) std::rethrow_exception(error);
  check_cuda(ended, "cudaStreamEndCapture");
  cudaGraphExec_t ready = nullptr;
  const cudaError_t made = cudaGraphInstantiate(&ready, graph, 0);
  (void)cudaGraphDestroy(graph);
  check_cuda(made, "cudaGraphInstantiate");
  (void)cudaGraphExecDestroy(ready);
}

void DeviceExecutor::make_clock() {
  if (clock_) return;
  waited_ = DeviceBuffer(sizeof(WaitCount));
  // Whatever a memset loads is loaded here, not in a call.
  check_cuda(cudaMemsetAsync(waited_.data(), 0, sizeof(WaitCount), copy_), "cudaMemsetAsync");
  check_cuda(cudaStreamSynchronize(copy_), "cudaStreamSynchronize");
  clock_.emplace(step_notes(schedule_, joined_));
}

std::vector<ItemSample> DeviceExecutor::samples() const {
  return item_samples(plan_, traits_, schedule_, clock_->times());
}

std::optional<double> DeviceExecutor::waited_s() const {
  WaitCount count;
  check_cuda(cudaMemcpy(&count, waited_.data(), sizeof count, cudaMemcpyDefault), "waiting time");
  if (count.blocks == 0) return std::nullopt;
  int device = 0;
  int sms = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  check_cuda(cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device),
             "number of multiprocessors");
  if (context_.sm_limit > 0) sms = std::min(sms, context_.sm_limit);
  return static_cast<double>(count.nanoseconds) * 1e-9 / sms;
}

void DeviceExecutor::enqueue(const Memory& memory, cudaStream_t stream, DeviceMode mode,
                             bool noted) {
  context_.waited = noted ? reinterpret_cast<WaitCount*>(waited_.data()) : nullptr;
  if (noted) {
    check_cuda(cudaMemsetAsync(waited_.data(), 0, sizeof(WaitCount), stream), "cudaMemsetAsync");
    clock_->begin_call(stream);
  }
  context_.stream = stream;
  lanes_ = {comm::LinkStream{stream, report_.awaited[0]},
            comm::LinkStream{mode == DeviceMode::blocking ? stream : copy_, report_.awaited[1]}};
  const bool together = mode != DeviceMode::transfers_alone;
  const bool begins = !begins_with_attend_ || mode == DeviceMode::transfers_alone;
  const bool begins_with_prepares = begins && together && !schedule_.steps.empty() &&
                                    schedule_.steps.front().lane == Lane::compute &&
                                    may_join(plan_, schedule_.steps.front());
  std::size_t first = 0;
  if (begins_with_prepares) {
    noting(noted, 0, [&] { prepare_together(0, memory, true); });
    first = static_cast<std::size_t>(joined_.front());
  } else if (begins) {
    launch_begin(report_.words, report_.pass, stream);
  }
  if (schedule_.copies && mode != DeviceMode::blocking) {
    // Copies belong to the caller's stream from here on, which also lets a graph capture them.
    check_cuda(cudaEventRecord(begin_.get(), stream), "cudaEventRecord");
    check_cuda(cudaStreamWaitEvent(copy_, begin_.get(), 0), "cudaStreamWaitEvent");
  }
  for (std::size_t s = first, count = 1; s < schedule_.steps.size(); s += count) {
    count = together ? static_cast<std::size_t>(joined_[s]) : 1;
    noting(noted, s, [&] {
      if (count > 1) return prepare_together(s, memory, false);
      play(schedule_.steps[s], memory, mode);
    });
  }
  link_.flush();
  if (noted) clock_->end_call(stream);
}

/// `launch` enqueues that step, and those joined to it.
template <typename Launch>
void DeviceExecutor::noting(bool noted, std::size_t step, const Launch& launch) {
  if (!noted) return launch();
  const cudaStream_t stream = on(schedule_.steps[step].lane).stream;
  clock_->begin(step, stream);
  launch();
  link_.flush();  // else the step's time would lack what the link still holds
  clock_->end(step, stream);
}

/// What the host enqueues there; a launch of several transfers has the name of the last, a step for
/// several the name of the first.
RangeName DeviceExecutor::range_of(const Step& step) const {
  const auto i = static_cast<std::size_t>(step.index);
  switch (step.kind) {
    case Step::Kind::compute:
      return ranges_.of(step.index);
    case Step::Kind::transfer:
    case Step::Kind::move:
      return ranges_.of(item_of_[i]);
    case Step::Kind::raise:
      return ranges_.of(item_of_[static_cast<std::size_t>(schedule_.raised[i])]);
    case Step::Kind::await_over:
      return ranges_.of(item_of_[static_cast<std::size_t>(schedule_.awaited[i])]);
    case Step::Kind::sources:
      return ranges_.of(item_of_[static_cast<std::size_t>(schedule_.arrivals[i])]);
    case Step::Kind::arrived:
    case Step::Kind::release:
    case Step::Kind::departed:
    case Step::Kind::record:
    case Step::Kind::wait:
      break;
  }
  return nullptr;
}

void DeviceExecutor::play(const Step& step, const Memory& memory, DeviceMode mode) {
  const HostRange range(range_of(step));
  const comm::LinkStream& lane = on(step.lane);
  const auto i = static_cast<std::size_t>(step.index);
  const bool moves = mode != DeviceMode::compute_alone;
  switch (step.kind) {
    case Step::Kind::compute:
      link_.flush();
      if (mode != DeviceMode::transfers_alone) compute(plan_.items[i], memory);
      break;
    case Step::Kind::transfer:
      if (moves) link_.start(step.index, lane);
      break;
    case Step::Kind::raise:
      if (moves) link_.raise(listed(schedule_.raised, step), lane);
      break;
    case Step::Kind::await_over:
      if (moves) link_.await_over(listed(schedule_.awaited, step), lane);
      break;
    case Step::Kind::sources:
      if (moves) link_.await_sources(listed(schedule_.arrivals, step), lane);
      break;
    case Step::Kind::move:
      if (moves) link_.move(step.index, lane);
      break;
    case Step::Kind::arrived:
      tell(step, lane);
      break;
    case Step::Kind::departed:
      // Where nothing computes, nobody would say so.
      if (moves && mode != DeviceMode::transfers_alone) await_heads(schedule_.departures[i], lane);
      break;
    case Step::Kind::release:
      if (moves) link_.release(listed(schedule_.arrivals, step), lane);
      break;
    case Step::Kind::record:
      link_.flush();
      check_cuda(cudaEventRecord(events_[i].get(), lane.stream), "cudaEventRecord");
      break;
    case Step::Kind::wait:
      link_.flush();
      check_cuda(cudaStreamWaitEvent(lane.stream, events_[i].get(), 0), "cudaStreamWaitEvent");
      break;
  }
}

/// Also where nothing moves: the kernel waits for it. On the compute lane all has arrived, and
/// kernels start.
void DeviceExecutor::tell(const Step& step, const comm::LinkStream& lane) {
  std::uint32_t* word = launches_.arrived() + step.index;
  const auto count = static_cast<std::uint32_t>(step.count);
  if (step.lane == Lane::compute) {
    link_.flush();
    return launch_fill(word, 1, count, lane.stream);
  }
  link_.write(word, count, lane);
}

void DeviceExecutor::await_heads(const HeadSpan& heads, const comm::LinkStream& lane) {
  std::uint32_t* words = launches_.done(heads.attend);
  for (std::int32_t h = heads.first; h < heads.end; ++h) {
    link_.await_count(words + h, launches_.done_all(heads.attend), lane);
  }
}

/// The steps from this one on that are one launch. `begins`: it does what launch_begin() does.
void DeviceExecutor::prepare_together(std::size_t step, const Memory& memory, bool begins) {
  const HostRange range(range_of(schedule_.steps[step]));
  std::array<const Prepare*, kMostJoined> prepares{};
  const auto count = static_cast<std::size_t>(joined_[step]);
  for (std::size_t i = 0; i < count; ++i) {
    const Item& item = plan_.items[static_cast<std::size_t>(schedule_.steps[step + i].index)];
    prepares[i] = &plan_.prepares[static_cast<std::size_t>(item.payload)];
  }
  link_.flush();
  enqueue_prepares(std::span(prepares).first(count), memory, begins ? &report_.words : nullptr,
                   report_.pass, on(schedule_.steps[step].lane).stream,
                   converts_early_ && step > 0);
}

void DeviceExecutor::compute(const Item& item, const Memory& memory) {
  const auto i = static_cast<std::size_t>(item.payload);
  const bool first = &item == plan_.items.data();
  const auto stream = static_cast<cudaStream_t>(context_.stream);
  switch (item.kind) {
    case ItemKind::attend:
      context_.flops_assign = begins_with_attend_ && item.payload == 0;
      context_.behind_kernel = alone_ && !first;
      launches_.run(item.payload, memory, context_);
      break;
    case ItemKind::merge:
      enqueue_merge(plan_.merges[i], memory, stream);
      break;
    case ItemKind::reduce:
      enqueue_reduce(plan_.reduces[i], memory, stream);
      break;
    case ItemKind::prepare:
      enqueue_prepare(plan_.prepares[i], memory, stream, converts_early_ && !first);
      break;
    case ItemKind::transfer:
      break;
  }
}

}  // namespace annulus::attn
