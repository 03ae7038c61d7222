#include "comm/mesh.h"

#include <annulus/collective.h>

namespace annulus {

void all_gather(Mesh& mesh, std::span<const std::byte> mine, std::span<std::byte> all,
                std::string_view what) {
  mesh.impl().communicator->all_gather(mine, all, what);
}

void barrier(Mesh& mesh, std::string_view what) { mesh.impl().communicator->barrier(what); }

void require_success(Mesh& mesh, std::string_view what, std::string_view error) {
  comm::require_success(*mesh.impl().communicator, what, error);
}

}  // namespace annulus
