#pragma once

#include <annulus/mesh.h>

#include <chrono>

namespace annulus::testing {

/// From here on every transfer of this rank takes at least `least` from its start, as on a link
/// that is slow but asks nothing of the processor. Numbers stay; what overlap hides becomes visible
/// beside the noise of a shared machine.
void slow_down(Mesh& mesh, std::chrono::milliseconds least);

}  // namespace annulus::testing
