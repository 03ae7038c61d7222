#pragma once

#include "comm/communicator.h"
#include "runtime/base/log.h"

#include <annulus/mesh.h>

#include <memory>

namespace annulus::detail {

/// What a Mesh holds. The engine and the executor reach it through Mesh::impl().
struct MeshImpl {
  std::unique_ptr<comm::Communicator> communicator;
  MeshShape shape;
  MeshOptions options;
  Logger logger;
};

}  // namespace annulus::detail
