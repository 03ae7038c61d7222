#pragma once

#include "comm/mesh.h"

#include <annulus/error.h>
#include <annulus/mesh.h>

#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace annulus::testing {

using RankBody = std::function<void(Mesh&)>;

/// Throws the given exception again, its text headed by the rank. Other types pass unchanged.
[[noreturn]] inline void rethrow_with_rank(const std::exception_ptr& error, int rank) {
  const std::string head = "rank " + std::to_string(rank) + ": ";
  try {
    std::rethrow_exception(error);
  } catch (const InvalidArgument& e) {
    throw InvalidArgument(head + e.what());
  } catch (const Unsupported& e) {
    throw Unsupported(head + e.what());
  } catch (const DeviceError& e) {
    throw DeviceError(head + e.what());
  } catch (const CommError& e) {
    throw CommError(head + e.what());
  } catch (const Timeout& e) {
    throw Timeout(head + e.what());
  } catch (const std::exception& e) {
    throw std::runtime_error(head + e.what());
  }
}

/// Runs `body` on one thread for each rank. Throws the first exception of any rank; the other
/// ranks hear of it, so that they end too.
inline void run_ranks(MeshShape shape, const RankBody& body, const MeshOptions& options = {}) {
  std::vector<Mesh> meshes = Mesh::threads(shape, options);
  std::mutex mutex;
  std::exception_ptr first;
  int first_rank = -1;
  const auto run = [&](Mesh& mesh) {
    try {
      body(mesh);
    } catch (...) {
      {
        const std::scoped_lock lock(mutex);
        if (!first) {
          first = std::current_exception();
          first_rank = mesh.rank();
        }
      }
      mesh.impl().communicator->report_failure("a test body threw");
    }
  };
  {
    std::vector<std::jthread> threads;
    for (Mesh& mesh : meshes) threads.emplace_back([&run, &mesh] { run(mesh); });
  }
  if (first) rethrow_with_rank(first, first_rank);
}

inline void run_ranks(int ranks, const RankBody& body, const MeshOptions& options = {}) {
  run_ranks(MeshShape{.ring = ranks}, body, options);
}

}  // namespace annulus::testing
