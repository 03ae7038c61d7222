#pragma once

#include "attention/execute/executor.h"
#include "runtime/engine/session.h"

#include <annulus/plan.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace annulus::engine {

/// One pass of one attention, bound to a session's arena. Never moves: its parts refer to each
/// other.
class BoundPass {
 public:
  BoundPass(Session::Impl& session, Plan plan, const attn::Kernel& kernel);
  BoundPass(const BoundPass&) = delete;
  BoundPass& operator=(const BoundPass&) = delete;

  const Plan& plan() const { return plan_; }
  const RankPlan& rank() const { return rank_; }
  const CallStats& stats() const { return stats_; }

  void set(Role role, const TensorView& tensor) { memory_.set_caller(rank_, role, tensor); }

  /// Throws Timeout or CommError that says what every rank reported; the session is dead then.
  CallStats run(attn::ExecuteMode mode);

 private:
  [[noreturn]] void fail(const std::string& reason, bool timeout);

  Session::Impl& session_;
  Plan plan_;
  RankPlan rank_;
  attn::Launches launches_;
  attn::Memory memory_;
  attn::Executor executor_;
  CallStats stats_;
};

}  // namespace annulus::engine
