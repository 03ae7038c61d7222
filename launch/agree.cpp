#include "launch/agree.h"

#include <annulus/collective.h>

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::launch {

void refuse_together(Mesh& mesh, const std::string& text) {
  const auto world = static_cast<std::size_t>(mesh.world());
  const std::uint64_t mine = text.size();
  std::vector<std::uint64_t> lengths(world);
  all_gather(mesh, std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(lengths)),
             "what rank 0 refuses");
  if (lengths.front() == 0) return;
  std::string part = text;
  part.resize(lengths.front());
  std::string all(lengths.front() * world, '\0');
  all_gather(mesh, std::as_bytes(std::span(part)), std::as_writable_bytes(std::span(all)),
             "what rank 0 refuses");
  throw UsageError(all.substr(0, lengths.front()));
}

}  // namespace annulus::launch
