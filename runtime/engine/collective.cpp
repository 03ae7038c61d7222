#include "comm/mesh.h"

#include "comm/backoff.h"
#include "comm/transport.h"
#include "runtime/base/clock.h"

#include <annulus/collective.h>
#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus {
namespace {

/// Plans count their tags from 0 in the low 16 bits. The size goes into the others, so that two
/// calls of different sizes do not meet: Open MPI would write past the shorter buffer.
std::int32_t tag_of(std::int64_t bytes) {
  const auto bits = static_cast<std::uint64_t>(bytes) * 0x9e3779b97f4a7c15ULL >> 49U;
  return static_cast<std::int32_t>(bits << 16U | 0xffffU);
}

void move_bytes(Mesh& mesh, bool sends, int peer, std::byte* data, std::size_t size,
                std::string_view what) {
  if (peer == mesh.rank()) {
    throw InvalidArgument(fmt::format("{}: rank {} would send to itself", what, peer));
  }
  comm::Communicator& communicator = *mesh.impl().communicator;
  comm::Transport& transport = communicator.transport();
  const auto bytes = static_cast<std::int64_t>(size);
  const Deadline deadline(communicator.timeout_s());
  const auto ticket = transport.start(
      {.sends = sends, .peer = peer, .tag = tag_of(bytes), .region = {.base = data, .run = bytes}});
  for (comm::Backoff backoff; !transport.done(ticket); transport.rest(backoff)) {
    transport.progress();
    if (!deadline.expired()) continue;
    const std::string text =
        fmt::format("rank {}: {}: {} bytes {} rank {} did not move in {:.1f} s", mesh.rank(), what,
                    bytes, sends ? "to" : "from", peer, deadline.elapsed_s());
    transport.cancel();
    communicator.report_failure(text);
    throw Timeout(text);
  }
}

/// Failures say where this rank stood, and are logged: a job that is being ended may lose what it
/// prints last.
template <typename Work>
void watched(const Mesh& mesh, std::string_view what, const Work& work) {
  const Logger& log = mesh.impl().logger;
  try {
    work();
  } catch (const CommError& error) {
    const std::string text = fmt::format("{}; this rank was at item '{}'", error.what(), what);
    log.error("{}", text);
    throw CommError(text);
  } catch (const Timeout& error) {
    log.error("{}", error.what());
    throw;
  }
}

}  // namespace

void send(Mesh& mesh, int to, std::span<const std::byte> data, std::string_view what) {
  // The transport reads it only: one type of region serves both ends.
  watched(mesh, what, [&] {
    move_bytes(mesh, true, to, const_cast<std::byte*>(data.data()), data.size(), what);
  });
}

void receive(Mesh& mesh, int from, std::span<std::byte> data, std::string_view what) {
  watched(mesh, what, [&] { move_bytes(mesh, false, from, data.data(), data.size(), what); });
}

void all_gather(Mesh& mesh, std::span<const std::byte> mine, std::span<std::byte> all,
                std::string_view what) {
  watched(mesh, what, [&] { mesh.impl().communicator->all_gather(mine, all, what); });
}

void barrier(Mesh& mesh, std::string_view what) {
  watched(mesh, what, [&] { mesh.impl().communicator->barrier(what); });
}

void require_success(Mesh& mesh, std::string_view what, std::string_view error) {
  comm::require_success(*mesh.impl().communicator, what, error);
}

}  // namespace annulus
