#include "runtime/engine/bound_pass.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <optional>
#include <string>
#include <vector>

namespace annulus::engine {
namespace {

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

void require_arena(const Session::Impl& session, std::int64_t bytes) {
  if (bytes <= static_cast<std::int64_t>(session.arena.size())) return;
  throw InvalidArgument(
      fmt::format("attention needs {} bytes of arena, the session has {}: "
                  "raise its max_problem",
                  bytes, session.arena.size()));
}

void require_alive(const Session::Impl& session) {
  if (!session.dead) return;
  throw CommError(fmt::format("rank {}: an earlier call failed, the mesh is dead: rebuild it",
                              session.mesh->rank()));
}

void fail_mesh(detail::MeshImpl& mesh, const std::string& reason, bool timeout) {
  // First, so that nothing writes to the caller's memory while the others are heard.
  mesh.communicator->transport().cancel();
  const auto reports = mesh.communicator->report_failure(reason);
  mesh.logger.error("{}", reason);
  mesh.logger.dump_recent();
  // Nobody was given time to answer an abort.
  const bool aborted = mesh.communicator->aborted();
  const std::string text = aborted ? reason : reason + silent_ranks(reports);
  if (timeout) throw Timeout(text);
  throw CommError(text);
}

void fail_call(Session::Impl& session, const std::string& reason, bool timeout) {
  session.dead = true;
  fail_mesh(session.mesh->impl(), reason, timeout);
}

}  // namespace annulus::engine
