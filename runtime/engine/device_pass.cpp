#include "runtime/engine/device_pass.h"

#include "attention/execute/cuda/device_executor.h"
#include "attention/execute/cuda/device_transfers.h"
#include "comm/device/queues.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/kernel_entries.h"
#include "runtime/engine/cuda_memory.h"
#include "runtime/engine/stream_gate.h"

#include <annulus/device_memory.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
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

/// All that calls of a plan may launch: which kernels they are depends on how the caller's tensors
/// lie, of which bind knows nothing.
void load_code(const Plan& plan, Pass pass, const attn::Kernel& kernel) {
  load_kernels(attn::row_entries());
  if (kernel.entries == nullptr) return;
  load_kernels(kernel.entries(attn::kernel_query(plan.request().problem, pass, kernel.backend)));
}

bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status{};
  check_cuda(cudaStreamIsCapturing(stream, &status), "cudaStreamIsCapturing");
  return status != cudaStreamCaptureStatusNone;
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
        launches_(fitting(attn::Launches(plan_, rank_, kernel, deterministic))),
        slots_(rank_, plan_.request().problem.batch, memory_.arena().data()),
        link_(memory_.make_link(
            attn::device_transfers(plan_, rank_, slots_,
                                   [&](const Transfer& t) { return reach_of(t); }),
            plan_.hash())),
        executor_(rank_, slots_, launches_, *link_,
                  memory_.arena().subspan(static_cast<std::size_t>(rank_.arena_bytes)), report(),
                  memory_.copies(), deterministic, sm_limit),
        first_(make_event(true)),
        last_(make_event(true)) {
    memory_.watch().expect(id_, awaited_signals());
  }

  ~DevicePass() override {
    memory_.watch().forget(id_);
    // Calls may still run that read the lists.
    const DeviceScope scope(memory_.device());
    (void)cudaDeviceSynchronize();
    if (memory_.last_call() == last_.get()) memory_.set_last_call(nullptr);
  }

  const Plan& plan() const override { return plan_; }
  const RankPlan& rank() const override { return rank_; }

  void set(Role role, const TensorView& tensor) override { slots_.set_caller(rank_, role, tensor); }

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
    if (held) gate_.hold(stream);
    try {
      enqueue(mode, stream);
    } catch (...) {
      if (held) gate_.open();
      throw;
    }
    if (held) gate_.open();
  }

  void enqueue(RunMode mode, cudaStream_t stream, bool noted = false) {
    if (!captured_) check_cuda(cudaEventRecord(first_.get(), stream), "cudaEventRecord");
    executor_.enqueue(slots_, stream, mode_of(mode), noted);
    if (captured_) return;
    check_cuda(cudaEventRecord(last_.get(), stream), "cudaEventRecord");
    memory_.set_last_call(last_.get());
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
  attn::DeviceExecutor executor_;
  CudaEvent first_;
  CudaEvent last_;
  StreamGate gate_;  ///< of replays
  bool captured_ = false;
  bool ran_ = false;
  bool noting_ = false;
  bool noted_ = false;
};

}  // namespace

int choose_device(const SessionOptions& options, int local_rank) {
  const int count = device_count();
  if (count == 0) throw Unsupported("back end cuda: no GPU was found; built: cpu, cuda");
  (void)comm::peer::Driver::load();
  if (options.device >= count || options.device < -1) {
    throw InvalidArgument(fmt::format("device {}: there are {} GPUs", options.device, count));
  }
  return options.device >= 0 ? options.device : local_rank % count;
}

std::unique_ptr<DeviceMemory> make_device_memory(comm::Communicator& communicator,
                                                 const SessionOptions& options, int device,
                                                 std::int64_t arena_bytes) {
  comm::require_agreement(communicator, "peer_copies", options.peer_copies);
  const bool share_gpus = comm::require_queues(communicator, device);
  return std::make_unique<CudaMemory>(communicator, options, device, arena_bytes, share_gpus);
}

std::unique_ptr<BoundPass> make_device_pass(Session::Impl& session, Plan plan, RankPlan rank,
                                            const attn::Kernel& kernel, bool deterministic,
                                            int sm_limit) {
  const DeviceScope scope(session.device->device());
  load_code(plan, rank.pass, kernel);
  return std::make_unique<DevicePass>(session, std::move(plan), std::move(rank), kernel,
                                      deterministic, sm_limit);
}

}  // namespace annulus::engine
