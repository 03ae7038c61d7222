#include "comm/mesh.h"

#include <annulus/collective.h>
#include <annulus/error.h>

#include <fmt/format.h>

namespace annulus {
namespace {

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
