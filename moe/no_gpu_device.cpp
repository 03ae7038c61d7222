#include "moe/device.h"

#include <annulus/error.h>

namespace annulus::moe {

Device gpu_device(void* /*stream*/) { throw Unsupported("MoE on a GPU: built without CUDA"); }

}  // namespace annulus::moe
