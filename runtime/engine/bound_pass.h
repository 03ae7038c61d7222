#pragma once

#include "attention/execute/executor.h"
#include "runtime/engine/fail_mesh.h"
#include "runtime/engine/session.h"

#include <annulus/plan.h>
#include <annulus/trace.h>

#include <string>

namespace annulus::engine {

enum class RunMode : std::uint8_t { overlapped, blocking, transfers_alone, compute_alone };

/// One pass of one attention, bound to a session's memory. Never moves: its parts refer to each
/// other. One implementation for the host, one for GPUs.
class BoundPass {
 public:
  BoundPass() = default;
  BoundPass(const BoundPass&) = delete;
  BoundPass& operator=(const BoundPass&) = delete;
  virtual ~BoundPass() = default;

  virtual const Plan& plan() const = 0;
  virtual const RankPlan& rank() const = 0;
  virtual void set(Role role, const TensorView& tensor) = 0;

  /// Throws Timeout or CommError that says what every rank reported; the session is dead then.
  /// Host: returns when it is done. GPU: enqueues.
  virtual void run(RunMode mode, Stream stream) = 0;

  /// Of the last run; waits for it.
  virtual CallStats stats() = 0;

  /// Plays the last run again in part, on a stream of its own, and waits for it. stats() stays.
  virtual CallStats replay(RunMode mode) = 0;

  /// Whether runs from here on note when items begin and end; replays do not.
  virtual void record(bool on) = 0;
  /// Of the last run that was recorded; waits for it. Throws InvalidArgument where there is none.
  virtual CallTrace recorded() = 0;

  /// Waits until what was enqueued on `stream` is over. Throws as run does.
  virtual void synchronize(Stream stream) = 0;
};

std::unique_ptr<BoundPass> make_host_pass(Session::Impl& session, Plan plan, RankPlan rank,
                                          const attn::Kernel& kernel);

/// Throws InvalidArgument where a pass needs more than the session's arena has.
void require_arena(const Session::Impl& session, std::int64_t bytes);

/// Throws InvalidArgument: recorded() without a recorded run.
[[noreturn]] void refuse_unrecorded(Pass pass);

/// Throws CommError where an earlier call failed.
void require_alive(const Session::Impl& session);

/// Tells the other ranks, hears them, logs, and throws Timeout or CommError; the session is dead.
[[noreturn]] void fail_call(Session::Impl& session, const std::string& reason, bool timeout);

}  // namespace annulus::engine
