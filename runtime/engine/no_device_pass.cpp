// Where CUDA is not built.

#include "runtime/engine/device_pass.h"

#include <annulus/error.h>

namespace annulus::engine {

int choose_device(const SessionOptions&, int) {
  throw Unsupported(
      "back end cuda is not built: install the CUDA Toolkit and configure again; built: cpu");
}

std::vector<std::string> device_transports() { return {}; }

std::unique_ptr<DeviceMemory> make_device_memory(comm::Communicator&, const SessionOptions&, int,
                                                 const ArenaBytes&) {
  throw Unsupported("back end cuda is not built; built: cpu");
}

std::unique_ptr<BoundPass> make_device_pass(Session::Impl&, Plan, RankPlan, const attn::Kernel&,
                                            bool, int) {
  throw Unsupported("back end cuda is not built; built: cpu");
}

}  // namespace annulus::engine
