// Where CUDA is not built.
#include "runtime/engine/moe/layer_impl.h"

#include <annulus/error.h>

namespace annulus::moe::engine {

std::unique_ptr<Layer::Impl> make_gpu_layer(Mesh&, const LayerShape&, std::uint32_t, int) {
  throw Unsupported("moe layer: back end cuda is not built; built: cpu");
}

}  // namespace annulus::moe::engine
