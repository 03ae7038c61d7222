#pragma once

#include "runtime/engine/bound_pass.h"
#include "runtime/engine/session.h"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace annulus::engine {

/// The GPU of the rank that is number `local_rank` on its host. Throws Unsupported where CUDA is
/// not built, no GPU is there or its driver lacks what is needed; InvalidArgument for an
/// options.device that is not there.
using ArenaBytes = std::function<std::int64_t(InPlace)>;

int choose_device(const SessionOptions& options, int local_rank);

/// The memory of a rank on its GPU. Collective to make and to drop; throws on all ranks alike.
/// `arena_bytes`: how large an arena it takes, by what is exchanged in place.
std::unique_ptr<DeviceMemory> make_device_memory(comm::Communicator& communicator,
                                                 const SessionOptions& options, int device,
                                                 const ArenaBytes& arena_bytes);

/// Names of the transports between GPUs that are built in; none where CUDA is not.
std::vector<std::string> device_transports();

std::unique_ptr<BoundPass> make_device_pass(Session::Impl& session, Plan plan, RankPlan rank,
                                            const attn::Kernel& kernel, bool deterministic,
                                            int sm_limit);

}  // namespace annulus::engine
