#include "runtime/engine/device_pass.h"

#include "attention/execute/cuda/device_executor.h"
#include "attention/execute/cuda/device_transfers.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_pool.h"
#include "runtime/base/relaxed_capture.h"
#include "runtime/engine/cuda_memory.h"
#include "runtime/engine/pass_code.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace annulus::engine {
namespace {

constexpr int kBackward = 1;

/// What so many items enqueue fits into a stream's queue of some 1000 entries. Where it does not,
/// the host would wait for what it holds itself.
constexpr std::size_t kMostHeldItems = 300;

attn::DeviceMode mode_of(RunMode mode) {
  switch (mode) {
    case RunMode::blocking:
      return attn::DeviceMode::blocking;
    case RunMode::transfers_alone:
      return attn::DeviceMode::transfers_alone;
    case RunMode::compute_alone:
      return attn::DeviceMode::compute_alone;
    case RunMode::overlapped:
      break;
  }
  return attn::DeviceMode::overlapped;
}

class DevicePass final : public BoundPass {
 public:
  DevicePass(Session::Impl& session, Plan plan, RankPlan rank, const attn::Kernel& kernel,
             bool deterministic, int sm_limit)
      : session_(session),
        memory_(dynamic_cast<CudaMemory&>(*session.device)),
        plan_(std::move(plan)),
        rank_(std::move(rank)),
        id_(memory_.next_pass()),
        launches_(fitting(attn::Launches(plan_, rank_, kernel, deterministic)), memory_.pool(),
                  memory_.words()),
        slots_(rank_, plan_.request().problem.batch, memory_.arena().data()),
        link_(memory_.make_link(
            attn::device_transfers(plan_, rank_, slots_,
                                   [&](const Transfer& t) { return reach_of(t); }),
            plan_.hash())),
        in_callers_(attn::caller_transfers(rank_)),
        executor_(rank_, launches_, *link_,
                  memory_.arena().subspan(static_cast<std::size_t>(rank_.arena_bytes)), report(),
                  memory_.copies(), deterministic, sm_limit),
        first_(make_event(true)),
        last_(make_event(true)),
        listed_(make_event()) {
    check_cuda(cudaEventRecord(listed_.get(), memory_.copies()), "cudaEventRecord");
    if (memory_.is_new(kinds_of(executor_, plan_, rank_.pass, kernel, deterministic, sm_limit))) {
      executor_.rehearse(slots_);
    }
    memory_.watch().expect(id_, awaited_signals());
  }

  ~DevicePass() override {
    try {
      const DeviceScope scope(memory_.device());
      const RelaxedCapture relaxed;
      leave();
    } catch (...) {
      memory_.set_last_call(nullptr);  // the device is gone, and its memory with it
    }
  }

  const Plan& plan() const override { return plan_; }
  const RankPlan& rank() const override { return rank_; }

  void set(Role role, const TensorView& tensor) override {
    slots_.set_caller(rank_, role, tensor);
    for (const std::int32_t t : in_callers_[role]) {
      link_->set_own(t, slots_.region(rank_.transfers[static_cast<std::size_t>(t)].block));
    }
  }

  void run(RunMode mode, Stream stream) override {
    require_alive(session_);
    const DeviceScope scope(memory_.device());
    const auto on = static_cast<cudaStream_t>(stream);
    captured_ = is_capturing(on);
    if (captured_) require_queues_of_graphs();
    if (memory_.watch().fired()) give_up();
    const bool noted = noting_ && !captured_;
    enqueue(mode, on, noted);
    noted_ = noted_ || noted;
    ran_ = true;
  }

  CallStats stats() override {
    CallStats stats;
    if (!ran_) return stats;
    stats = finish();
    stats.bytes_sent = rank_.bytes_sent;
    return stats;
  }

  CallStats replay(RunMode mode) override {
    require_alive(session_);
    const DeviceScope scope(memory_.device());
    await_last_call();
    const CudaStream stream = make_stream();
    std::int64_t flops = 0;
    check_cuda(cudaMemcpy(&flops, counter(), sizeof flops, cudaMemcpyDefault), "FLOP counter");
    captured_ = false;
    enqueue_behind_gate(mode, stream.get());
    const CallStats stats = finish();
    // What the last call counted stays.
    check_cuda(cudaMemcpy(counter(), &flops, sizeof flops, cudaMemcpyDefault), "FLOP counter");
    return stats;
  }

  void record(bool on) override {
    const DeviceScope scope(memory_.device());
    if (on) executor_.make_clock();
    noting_ = on;
  }

  CallTrace recorded() override {
    if (!noted_) refuse_unrecorded(rank_.pass);
    const DeviceScope scope(memory_.device());
    const attn::StepClock& clock = executor_.clock();
    drain([&] { return cudaEventQuery(clock.last()); });
    require_no_timeout();
    const attn::HostTime first =
        attn::place_on_host(clock.first(), memory_.copies(), session_.communicator().timeout_s());
    CallTrace trace{rank_.pass,
                    first.at_s,
                    first.at_s + clock.call_s(),
                    first.error_s,
                    executor_.waits_inside(),
                    executor_.samples(),
                    executor_.waits_inside() ? executor_.waited_s() : std::nullopt};
    for (ItemSample& s : trace.samples) {
      s.begin_s += first.at_s;
      s.await_s += first.at_s;
      s.end_s += first.at_s;
    }
    return trace;
  }

  void synchronize(Stream stream) override {
    require_alive(session_);
    const DeviceScope scope(memory_.device());
    drain([&] { return cudaStreamQuery(static_cast<cudaStream_t>(stream)); });
    require_no_timeout();
  }

 private:
  /// Calls may still run that read the lists, which are freed in order of the copy stream.
  void leave() {
    if (strays_) {
      (void)cudaDeviceSynchronize();
    } else if (is_capturing(memory_.copies())) {
      await_event(last_.get(), session_.communicator().timeout_s(), "the last call");
    } else {
      check_cuda(cudaStreamWaitEvent(memory_.copies(), last_.get(), 0), "cudaStreamWaitEvent");
    }
    memory_.retire(id_, std::move(last_));
  }

  /// A graph's branches go to queues that the driver chooses: where ranks share them, one may stand
  /// behind another that waits for it.
  void require_queues_of_graphs() const {
    if (!memory_.share_gpus() || rank_.transfers.empty()) return;
    throw Unsupported(
        fmt::format("rank {}: a graph may not capture calls where ranks are threads of one process "
                    "on one GPU: start them as processes",
                    rank_.rank));
  }

  /// Tiles are listed once: for the room that they need, and for the device.
  attn::Launches fitting(attn::Launches launches) const {
    require_arena(session_,
                  rank_.arena_bytes + attn::workspace_bytes(launches, session_.options.threads));
    return launches;
  }

  attn::TransferReach reach_of(const Transfer& t) const {
    const int sender = t.sends ? rank_.rank : t.peer;
    const int receiver = t.sends ? t.peer : rank_.rank;
    return {memory_.arena_of(t.peer), memory_.pulls(sender, receiver)};
  }

  std::vector<comm::DeviceLink::Signal> awaited_signals() const {
    std::vector<comm::DeviceLink::Signal> signals;
    for (std::size_t i = 0; i < rank_.transfers.size(); ++i) {
      signals.push_back(link_->awaited_signal(static_cast<std::int32_t>(i)));
    }
    return signals;
  }

  std::int64_t* counter() const {
    return memory_.control().counter(rank_.pass == Pass::backward ? kBackward : 0);
  }

  attn::DeviceReport report() {
    comm::peer::Notes* words = memory_.watch().words();
    return {.words = {counter(), &words->calls, &words->pass},
            .pass = id_,
            .abort = memory_.control().abort(),
            .awaited = {memory_.watch().awaited(0), memory_.watch().awaited(1)}};
  }

  /// Starts when all of it is enqueued, so that its time is not the host's.
  void enqueue_behind_gate(RunMode mode, cudaStream_t stream) {
    const bool held = rank_.items.size() <= kMostHeldItems;
    if (held) memory_.gate().hold(stream);
    try {
      enqueue(mode, stream);
    } catch (...) {
      if (held) memory_.gate().open();
      throw;
    }
    if (held) memory_.gate().open();
  }

  void enqueue(RunMode mode, cudaStream_t stream, bool noted = false) {
    await_lists(stream);
    const bool strays = std::exchange(strays_, true);
    if (!captured_) check_cuda(cudaEventRecord(first_.get(), stream), "cudaEventRecord");
    executor_.enqueue(slots_, stream, mode_of(mode), noted);
    if (captured_) return;
    check_cuda(cudaEventRecord(last_.get(), stream), "cudaEventRecord");
    memory_.set_last_call(last_.get());
    strays_ = strays;
  }

  /// A session's calls are in stream order: what the first one waits for is there for all. A graph
  /// may not wait for what is outside of it: then the host does.
  void await_lists(cudaStream_t stream) {
    if (listed_.get() == nullptr) return;
    if (!captured_) {
      check_cuda(cudaStreamWaitEvent(stream, listed_.get(), 0), "cudaStreamWaitEvent");
    } else {
      try {
        await_event(listed_.get(), session_.communicator().timeout_s(), "the upload of its lists");
      } catch (const Timeout& error) {
        fail_call(session_,
                  fmt::format("rank {} {}: {}", rank_.rank, name_of(rank_.pass), error.what()),
                  true);
      }
    }
    listed_.reset();
  }

  /// The caller's stream may still be busy with a call, whose flags and arena are those of a call
  /// that this starts on a stream of its own.
  void await_last_call() {
    if (memory_.last_call() == nullptr) return;
    drain([&] { return cudaEventQuery(memory_.last_call()); });
    require_no_timeout();
  }

  CallStats finish() {
    const DeviceScope scope(memory_.device());
    CallStats stats;
    if (captured_) {
      check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    } else {
      drain([&] { return cudaEventQuery(last_.get()); });
    }
    require_no_timeout();
    if (!captured_) {
      float ms = 0;
      check_cuda(cudaEventElapsedTime(&ms, first_.get(), last_.get()), "cudaEventElapsedTime");
      stats.total_s = ms * 1e-3;
    }
    check_cuda(cudaMemcpy(&stats.flops, counter(), sizeof stats.flops, cudaMemcpyDefault),
               "cudaMemcpy of the FLOP counter");
    return stats;
  }

  /// Until `query` is done. The watch ends waits for other ranks; if even that does not help, this
  /// gives up.
  template <typename Query>
  void drain(Query&& query) {
    std::optional<Deadline> after;
    for (cudaError_t code = query(); code != cudaSuccess; code = query()) {
      if (code != cudaErrorNotReady) check_cuda(code, "attention on the GPU");
      // Whoever aborts does not want to wait for the watch's deadline.
      if (session_.communicator().aborted()) memory_.watch().let_go();
      if (memory_.watch().fired()) {
        if (!after) after.emplace(session_.communicator().timeout_s());
        if (after->expired()) break;
      }
      std::this_thread::sleep_for(std::chrono::microseconds(20));
    }
    (void)cudaGetLastError();
  }

  void require_no_timeout() {
    if (memory_.watch().fired() || memory_.watch().aborted()) give_up();
  }

  [[noreturn]] void give_up() {
    const comm::peer::Watch& watch = memory_.watch();
    const auto found = watch.found();
    const std::uint32_t awaited = found.awaited[0] != 0 ? found.awaited[0] : found.awaited[1];
    if (watch.fired() && watch.stranger().found != 0) {
      const comm::peer::Watch::Stranger& s = watch.stranger();
      fail_call(
          session_,
          fmt::format("{}: its signal is of plan {:08x}, not {:08x}: ranks made different calls",
                      name_of_wait(found.pass, s.transfer), s.found, s.wanted),
          false);
    }
    if (!watch.fired() || watch.waited_s() == 0) {
      const std::string cause =
          session_.communicator().aborted() ? "aborted by the caller" : "another rank gave up";
      fail_call(session_,
                awaited == 0 || !watch.fired()
                    ? fmt::format("rank {}: {}", rank_.rank, cause)
                    : fmt::format("{}: {}", name_of_wait(found.pass, awaited - 1), cause),
                false);
    }
    fail_call(session_,
              fmt::format("{} did not complete in {:.1f} s", name_of_wait(found.pass, awaited - 1),
                          watch.waited_s()),
              true);
  }

  std::string name_of_wait(std::uint32_t pass, std::uint32_t transfer) const {
    if (pass == id_) {
      for (std::size_t i = 0; i < rank_.items.size(); ++i) {
        const Item& item = rank_.items[i];
        if (item.kind == ItemKind::transfer &&
            item.payload == static_cast<std::int32_t>(transfer)) {
          return describe(rank_, static_cast<std::int32_t>(i)) + others_of(item.payload);
        }
      }
    }
    return fmt::format("rank {} transfer {} of another pass", rank_.rank, transfer);
  }

  /// A launch of several transfers does not tell which one is missing.
  std::string others_of(std::int32_t transfer) const {
    if (link_->awaited_signal(transfer).word != nullptr) return "";  // that one has its own
    std::ptrdiff_t others = -1;
    for (std::size_t i = 0; i < rank_.transfers.size(); ++i) {
      others += link_->group_end(static_cast<std::int32_t>(i)) == transfer ? 1 : 0;
    }
    return others > 0 ? fmt::format(", or one of {} others of its launch,", others) : "";
  }

  Session::Impl& session_;
  CudaMemory& memory_;
  Plan plan_;
  RankPlan rank_;
  std::uint32_t id_;
  attn::DeviceLaunches launches_;
  attn::Memory slots_;
  std::unique_ptr<comm::DeviceLink> link_;
  std::map<Role, std::vector<std::int32_t>> in_callers_;  ///< transfers that follow its tensors
  attn::DeviceExecutor executor_;
  CudaEvent first_;
  CudaEvent last_;
  CudaEvent listed_;     ///< the lists are on the device; null once that is known
  bool strays_ = false;  ///< something may run behind last_: graphs, or a call that threw
  bool captured_ = false;
  bool ran_ = false;
  bool noting_ = false;
  bool noted_ = false;
};

}  // namespace

std::unique_ptr<BoundPass> make_device_pass(Session::Impl& session, Plan plan, RankPlan rank,
                                            const attn::Kernel& kernel, bool deterministic,
                                            int sm_limit) {
  const DeviceScope scope(session.device->device());
  const RelaxedCapture relaxed;
  load_code(dynamic_cast<CudaMemory&>(*session.device).loaded(), plan, rank.pass, kernel);
  return std::make_unique<DevicePass>(session, std::move(plan), std::move(rank), kernel,
                                      deterministic, sm_limit);
}

}  // namespace annulus::engine
