#include "runtime/engine/session.h"

#include "runtime/engine/arena_size.h"
#include "runtime/engine/bind.h"
#include "runtime/engine/device_pass.h"

#include <annulus/device_memory.h>
#include <annulus/error.h>
#include <annulus/machine.h>

#include <fmt/format.h>

#include <exception>
#include <utility>

namespace annulus {
namespace engine {

Decision decide(const Problem& problem, const Layout& layout, Algorithm algorithm, const Mesh& mesh,
                bool backward) {
  const int world = mesh.world();
  switch (algorithm) {
    case Algorithm::ring:
    case Algorithm::gather:
      return {algorithm, {.ring = world, .ulysses = 1}, "asked for"};
    case Algorithm::ulysses:
      return {algorithm, {.ring = 1, .ulysses = world}, "asked for"};
    case Algorithm::hybrid:
      return {algorithm, mesh.shape(), "asked for"};
    case Algorithm::automatic:
      break;
  }
  std::vector<Pass> passes{Pass::forward};
  if (backward) passes.push_back(Pass::backward);
  const AlgorithmChoice choice = choose_algorithm(problem, layout, world, passes);
  return {choice.algorithm, choice.mesh, choice.reason};
}

void agree_on_errors(comm::Communicator& communicator, std::string_view what,
                     const std::exception_ptr& local) {
  std::string text;
  if (local) {
    try {
      std::rethrow_exception(local);
    } catch (const std::exception& error) {
      text = error.what();
    }
  }
  try {
    comm::require_success(communicator, what, text);
  } catch (const InvalidArgument&) {
    // The rank that found it keeps its own type and text.
    if (local) std::rethrow_exception(local);
    throw;
  }
}

void agree_on_call(Session::Impl& session, std::string_view what, std::string_view summary,
                   const RankPlan& rank) {
  const auto where = [&](const std::exception& error) {
    return fmt::format("{}, before the first call: {}",
                       rank.items.empty() ? fmt::format("rank {}", rank.rank) : describe(rank, 0),
                       error.what());
  };
  std::string differs;
  try {
    differs = comm::disagreement(session.communicator(), what, summary);
  } catch (const Timeout& error) {
    fail_call(session, where(error), true);
  } catch (const std::exception& error) {
    fail_call(session, where(error), false);
  }
  if (!differs.empty()) throw CommError(differs);
}

}  // namespace engine

namespace {

std::string backend_of(const SessionOptions& options) {
  if (options.backend == "cpu" || options.backend == "cuda") return options.backend;
  if (options.backend != "auto") {
    throw InvalidArgument(
        fmt::format("session backend {}: auto, cpu or cuda is allowed", options.backend));
  }
  return device_count() > 0 ? "cuda" : "cpu";
}

}  // namespace

Session::Session(Mesh& mesh, const SessionOptions& options) : impl_(std::make_unique<Impl>()) {
  impl_->mesh = &mesh;
  impl_->options = options;
  std::int64_t bytes = 0;
  int device = -1;
  const auto agreed = [&](const auto& work) {
    std::exception_ptr error;
    try {
      work();
    } catch (...) {
      error = std::current_exception();
    }
    engine::agree_on_errors(impl_->communicator(), "session", error);
  };
  agreed([&] {
    if (options.threads < 1) {
      throw InvalidArgument(fmt::format("session threads {}: must be >= 1", options.threads));
    }
    const std::string& copies = options.peer_copies;
    if (copies != "auto" && copies != "pull" && copies != "push") {
      throw InvalidArgument(
          fmt::format("session peer_copies {}: auto, pull or push is allowed", copies));
    }
    impl_->backend = backend_of(options);
    if (impl_->backend == "cpu" && impl_->communicator().device() >= 0 && mesh.world() > 1) {
      throw Unsupported("session backend cpu: a mesh made from an ncclComm_t serves GPUs alone");
    }
    bytes = engine::largest_arena(mesh, options, impl_->backend);
    const auto given = static_cast<std::int64_t>(options.arena.size());
    if (!options.arena.empty() && given < bytes) {
      throw InvalidArgument(
          fmt::format("session arena has {} bytes, the largest problem needs {}", given, bytes));
    }
  });
  comm::require_agreement(impl_->communicator(), "session backend", impl_->backend);
  if (impl_->backend == "cuda") {
    const int local_rank = comm::local_rank(impl_->communicator());
    agreed([&] {
      SessionOptions wanted = options;
      if (wanted.device < 0) wanted.device = impl_->communicator().device();
      device = engine::choose_device(wanted, local_rank);
    });
  }
  agreed([&] {
    if (impl_->backend == "cuda") {
      impl_->device_bytes_before = device_memory_used(device);
      impl_->device = engine::make_device_memory(
          impl_->communicator(), options, device, [&](engine::InPlace in_place) {
            const bool groups = engine::exchanges_in_groups(mesh, options);
            if (!groups || (!in_place.gives && !in_place.lands)) return bytes;
            return engine::largest_arena(mesh, options, impl_->backend, in_place);
          });
      impl_->arena = impl_->device->arena();
      engine::prepare_binds(*impl_);
      return;
    }
    // Collective, so that a rank with an arena of its own takes part as well.
    impl_->own = impl_->communicator().make_arena(options.arena.empty() ? bytes : 0);
    impl_->arena = options.arena.empty() ? impl_->own->bytes() : options.arena;
  });
}

Session::Session(Session&&) noexcept = default;
Session::~Session() = default;

Mesh& Session::mesh() const { return *impl_->mesh; }
std::string Session::backend() const { return impl_->backend; }
int Session::device() const { return impl_->device ? impl_->device->device() : -1; }

std::int64_t Session::device_bytes() const {
  return impl_->device ? device_memory_used(device()) - impl_->device_bytes_before : 0;
}

std::string Session::transport() const {
  return impl_->device ? impl_->device->transport() : impl_->mesh->transport();
}

std::string Session::transport_reason() const {
  return impl_->device ? impl_->device->transport_reason() : "the mesh's own";
}

std::int64_t Session::arena_bytes() const { return static_cast<std::int64_t>(impl_->arena.size()); }

}  // namespace annulus
