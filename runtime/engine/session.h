#pragma once

#include "attention/kernels/dispatch.h"
#include "comm/mesh.h"

#include <annulus/attention.h>
#include <annulus/plan.h>

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus {

namespace engine {

/// What ulysses groups exchange without staging: PlanOptions::give_in_place, land_in_place.
struct InPlace {
  bool gives = false;
  bool lands = false;
};

/// A session's memory on a GPU, and how it reaches other ranks'. Back ends derive from it.
class DeviceMemory {
 public:
  virtual ~DeviceMemory() = default;
  virtual int device() const = 0;
  virtual std::span<std::byte> arena() const = 0;
  virtual std::string transport() const = 0;
  virtual std::string transport_reason() const = 0;
  /// All ranks receive by their own copy engines, which run while a kernel fills their GPU.
  virtual bool copies_beside_kernels() const = 0;
  /// The same on all ranks.
  virtual InPlace in_place() const = 0;
  /// Some ranks are threads of one process on one GPU: what one does to it, such as to take memory,
  /// waits for what others have enqueued. The same on all ranks.
  virtual bool share_gpus() const = 0;
  /// Of what passes take when they are bound, beside the arena: room for twice what those take that
  /// are bound now.
  virtual void reserve() = 0;
  /// Does what is no part of a graph that this thread may be capturing.
  virtual void beside_captures(const std::function<void()>& work) const = 0;
};

}  // namespace engine

/// The arena of one rank: first the slots of a plan, then the kernels' workspace.
struct Session::Impl {
  Mesh* mesh = nullptr;
  SessionOptions options;
  std::string backend = "cpu";
  std::unique_ptr<comm::Arena> own;              ///< null on a GPU; empty where the caller gave one
  std::unique_ptr<engine::DeviceMemory> device;  ///< null on the CPU
  std::int64_t device_bytes_before = 0;
  std::span<std::byte> arena;
  bool dead = false;          ///< a call failed: the mesh is unusable
  bool told_of_rows = false;  ///< the log says that rows of a tensor do not suit their kernel

  comm::Communicator& communicator() const { return *mesh->impl().communicator; }
  const Logger& log() const { return mesh->impl().logger; }
};

namespace engine {

/// A request whose algorithm is decided, for one mesh: ring and gather see all ranks as a ring,
/// ulysses as one group, hybrid as the mesh says.
struct Decision {
  Algorithm algorithm = Algorithm::ring;
  MeshShape mesh{};
  std::string reason;
};
Decision decide(const Problem& problem, const Layout& layout, Algorithm algorithm, const Mesh& mesh,
                bool backward);

/// Throws, on every rank alike, what `local` holds, or InvalidArgument for another rank's error.
void agree_on_errors(comm::Communicator& communicator, std::string_view what,
                     const std::exception_ptr& local);

/// All ranks have the same `summary`, else all throw the same CommError. A rank that does not come
/// is a Timeout that names where `rank` begins; the session is dead then.
void agree_on_call(Session::Impl& session, std::string_view what, std::string_view summary,
                   const RankPlan& rank);

}  // namespace engine
}  // namespace annulus
