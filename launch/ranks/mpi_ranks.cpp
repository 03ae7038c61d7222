#include "launch/error.h"
#include "launch/ranks/ranks.h"
#include "launch/ranks/sentinel.h"

#include <annulus/error.h>

#include <fmt/format.h>
#include <mpi.h>

namespace annulus::launch {
namespace {

/// The library's own deadlines, which name rank and item, come first.
constexpr double kGrace = 2.0;

/// MPI from MPI_Init to MPI_Finalize, neither of which may hang.
class MpiSession {
 public:
  MpiSession(Sentinel& sentinel, double timeout_s) : sentinel_(sentinel), timeout_s_(timeout_s) {
    sentinel_.arm(timeout_s_, fmt::format("MPI_Init did not return within {} s: a rank is stopped "
                                          "or gone in set-up",
                                          timeout_s_));
    int provided = 0;
    MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided);
    // The library turns return codes into CommError; the default ends the process unexplained.
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    sentinel_.disarm();
  }
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;
  ~MpiSession() {
    sentinel_.arm(timeout_s_, fmt::format("MPI_Finalize did not return within {} s: a rank is "
                                          "stopped or gone",
                                          timeout_s_));
    MPI_Finalize();
    sentinel_.disarm();
  }

 private:
  Sentinel& sentinel_;
  double timeout_s_;
};

/// What ranks throw alike leaves as it came, since MPI_Finalize works then. After anything else the
/// process ends here: taking the mesh down would wait for the lost rank.
int run_guarded(const RankBody& body, Mesh& mesh, Sentinel& sentinel) {
  const Guarded guard(sentinel, {&mesh});
  try {
    return body(mesh);
  } catch (const InvalidArgument&) {
    throw;
  } catch (const Unsupported&) {
    throw;
  } catch (const UsageError&) {
    throw;
  } catch (const std::exception& error) {
    sentinel.leave(sentinel.interrupted() ? fmt::format("interrupted by a signal: {}", error.what())
                                          : error.what());
  }
}

Mesh make_mesh(const RanksRequest& request, Sentinel& sentinel) {
  try {
    return Mesh::from_mpi(MPI_Comm_c2f(MPI_COMM_WORLD), request.shape, request.options);
  } catch (const CommError& error) {
    sentinel.leave(error.what());
  } catch (const Timeout& error) {
    sentinel.leave(error.what());
  }
}

}  // namespace

int run_mpi_rank(const RanksRequest& request, const RankBody& body) {
  const double timeout_s = request.options.timeout_s;
  Sentinel sentinel(request.started);
  const MpiSession session(sentinel, timeout_s);
  sentinel.arm(timeout_s + kGrace, fmt::format("the mesh was not set up within {} s", timeout_s));
  Mesh mesh = make_mesh(request, sentinel);
  sentinel.disarm();
  const int code = run_guarded(body, mesh, sentinel);
  // The mesh goes here, and its communicator with it: collective, so under a deadline too.
  sentinel.arm(timeout_s + kGrace,
               fmt::format("the mesh was not taken down within {} s", timeout_s));
  return code;
}

std::string mpi_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string version(text, static_cast<std::size_t>(length));
  return version.substr(0, version.find(','));
}

}  // namespace annulus::launch
