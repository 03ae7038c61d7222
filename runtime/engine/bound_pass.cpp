#include "runtime/engine/bound_pass.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <string>

namespace annulus::engine {
namespace {

attn::ExecuteOptions execute_options(const Session::Impl& session, const RankPlan& rank) {
  attn::ExecuteOptions options;
  options.threads = session.options.threads;
  options.timeout_s = session.communicator().timeout_s();
  options.workspace = session.arena.subspan(static_cast<std::size_t>(rank.arena_bytes));
  return options;
}

/// "ranks 2 and 3 did not answer": they hang or are gone, so they are the likely cause.
std::string silent_ranks(const std::vector<std::optional<std::string>>& reports) {
  std::vector<std::size_t> silent;
  for (std::size_t r = 0; r < reports.size(); ++r) {
    if (!reports[r]) silent.push_back(r);
  }
  if (silent.empty()) return {};
  return fmt::format("; {} {} did not answer", silent.size() == 1 ? "rank" : "ranks",
                     fmt::join(silent, ", "));
}

}  // namespace

BoundPass::BoundPass(Session::Impl& session, Plan plan, const attn::Kernel& kernel)
    : session_(session),
      plan_(std::move(plan)),
      rank_(plan_.rank(session.mesh->rank())),
      launches_(plan_, rank_, kernel),
      memory_(rank_, plan_.request().problem.batch, session.arena.data()),
      executor_(rank_, plan_.hash(), launches_, session.communicator().transport(),
                execute_options(session, rank_)) {}

CallStats BoundPass::run(attn::ExecuteMode mode) {
  if (session_.dead) {
    throw CommError(fmt::format("rank {}: an earlier call failed, the mesh is dead: rebuild it",
                                session_.mesh->rank()));
  }
  try {
    const CallStats stats = executor_.run(memory_, mode);
    if (mode != attn::ExecuteMode::transfers_alone) stats_ = stats;
    return stats;
  } catch (const Timeout& error) {
    fail(error.what(), true);
  } catch (const std::exception& error) {
    fail(error.what(), false);
  }
}

void BoundPass::fail(const std::string& reason, bool timeout) {
  session_.dead = true;
  // First, so that nothing writes to the caller's memory while the others are heard.
  session_.communicator().transport().cancel();
  const auto reports = session_.communicator().report_failure(reason);
  session_.log().error("{}", reason);
  session_.log().dump_recent();
  // Nobody was given time to answer an abort.
  const bool aborted = session_.communicator().aborted();
  const std::string text = aborted ? reason : reason + silent_ranks(reports);
  if (timeout) throw Timeout(text);
  throw CommError(text);
}

}  // namespace annulus::engine
