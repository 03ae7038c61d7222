#include "runtime/base/clock.h"
#include "runtime/engine/arena_size.h"
#include "runtime/engine/bound_pass.h"

#include <annulus/error.h>

#include <memory>
#include <span>
#include <utility>

namespace annulus::engine {
namespace {

attn::ExecuteOptions execute_options(const Session::Impl& session, const RankPlan& rank) {
  attn::ExecuteOptions options;
  options.threads = session.options.threads;
  options.timeout_s = session.communicator().timeout_s();
  options.workspace = session.arena.subspan(static_cast<std::size_t>(rank.arena_bytes));
  return options;
}

attn::ExecuteMode mode_of(RunMode mode) {
  switch (mode) {
    case RunMode::blocking:
      return attn::ExecuteMode::blocking;
    case RunMode::transfers_alone:
      return attn::ExecuteMode::transfers_alone;
    case RunMode::compute_alone:
      throw Unsupported("back end cpu: compute alone is not built; stats() has exposed_s");
    case RunMode::overlapped:
      break;
  }
  return attn::ExecuteMode::overlapped;
}

class HostPass final : public BoundPass {
 public:
  HostPass(Session::Impl& session, Plan plan, RankPlan rank, const attn::Kernel& kernel)
      : session_(session),
        plan_(std::move(plan)),
        rank_(std::move(rank)),
        launches_(plan_, rank_, kernel, true),  // kernels of host memory always are
        memory_(rank_, plan_.request().problem.batch, session.arena.data()),
        executor_(rank_, plan_.hash(), launches_, session.communicator().transport(),
                  execute_options(session, rank_)) {}

  const Plan& plan() const override { return plan_; }
  const RankPlan& rank() const override { return rank_; }
  void set(Role role, const TensorView& tensor) override {
    memory_.set_caller(rank_, role, tensor);
  }

  void run(RunMode mode, Stream /*stream*/) override {
    if (!noting_) {
      stats_ = play(mode, {});
      return;
    }
    trace_.begin_s = monotonic_s();
    stats_ = play(mode, trace_.samples);
    trace_.end_s = monotonic_s();
    noted_ = true;
  }

  CallStats replay(RunMode mode) override { return play(mode, {}); }

  void record(bool on) override {
    noting_ = on;
    if (on) trace_.samples.resize(rank_.items.size());
  }

  CallTrace recorded() override {
    if (!noted_) refuse_unrecorded(rank_.pass);
    return trace_;
  }

  CallStats stats() override { return stats_; }
  void synchronize(Stream /*stream*/) override {}

 private:
  CallStats play(RunMode mode, std::span<ItemSample> samples) {
    require_alive(session_);
    const attn::ExecuteMode how = mode_of(mode);
    try {
      return executor_.run(memory_, how, samples);
    } catch (const Timeout& error) {
      fail_call(session_, error.what(), true);
    } catch (const std::exception& error) {
      fail_call(session_, error.what(), false);
    }
  }

  Session::Impl& session_;
  Plan plan_;
  RankPlan rank_;
  attn::Launches launches_;
  attn::Memory memory_;
  attn::Executor executor_;
  CallStats stats_;
  CallTrace trace_{rank_.pass, 0, 0, 0, false, {}};
  bool noting_ = false;
  bool noted_ = false;
};

}  // namespace

std::unique_ptr<BoundPass> make_host_pass(Session::Impl& session, Plan plan, RankPlan rank,
                                          const attn::Kernel& kernel) {
  require_arena(session, arena_bytes(plan, rank, kernel, session.options.threads));
  return std::make_unique<HostPass>(session, std::move(plan), std::move(rank), kernel);
}

}  // namespace annulus::engine
