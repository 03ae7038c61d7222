#pragma once

#include "comm/mesh.h"

#include <string>

namespace annulus::engine {

/// Tells the other ranks, hears them, logs, and throws Timeout or CommError; the mesh is dead.
[[noreturn]] void fail_mesh(detail::MeshImpl& mesh, const std::string& reason, bool timeout);

}  // namespace annulus::engine
