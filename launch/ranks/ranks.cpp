#include "launch/ranks/ranks.h"

#include "launch/ranks/sentinel.h"

#include <annulus/error.h>

#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace annulus::launch {
namespace {

/// The first failure is the cause; those of the other ranks follow from the abort.
class FirstFailure {
 public:
  void keep(std::exception_ptr failure) {
    const std::scoped_lock lock(lock_);
    if (!failure_) failure_ = std::move(failure);
  }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  std::mutex lock_;
  std::exception_ptr failure_;
};

int run_threads(const RanksRequest& request, const RankBody& body) {
  Sentinel sentinel(request.started);
  std::vector<Mesh> meshes = Mesh::threads(request.shape, request.options);
  std::vector<Mesh*> guarded;
  for (Mesh& mesh : meshes) guarded.push_back(&mesh);
  const Guarded guard(sentinel, guarded);
  FirstFailure failure;
  std::vector<int> codes(meshes.size(), 0);
  {
    std::vector<std::jthread> ranks;
    for (std::size_t rank = 0; rank < meshes.size(); ++rank) {
      ranks.emplace_back([&, rank] {
        try {
          codes[rank] = body(meshes[rank]);
        } catch (...) {
          failure.keep(std::current_exception());
          for (Mesh& mesh : meshes) mesh.abort();
        }
      });
    }
  }
  if (sentinel.interrupted()) throw CommError("interrupted by a signal");
  failure.rethrow();
  return codes.front();
}

}  // namespace

int run_ranks(const RanksRequest& request, const RankBody& body) {
  return request.transport == "mpi" ? run_mpi_rank(request, body) : run_threads(request, body);
}

}  // namespace annulus::launch
