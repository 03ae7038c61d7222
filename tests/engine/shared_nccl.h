#pragma once

#include <annulus/mesh.h>

// A communicator of NCCL that many sessions are given: each one's own takes 0.7 s.
namespace annulus::testing {

/// Collective, of ranks that are processes: makes it, once in a process. After the first session,
/// which makes its own and with it settles what NCCL reads once (comm::nccl::pretend_host).
void share_nccl(Mesh& mesh, int device);

/// The ncclComm_t, or null before: for SessionOptions::nccl.
void* shared_nccl(const Mesh& mesh);

}  // namespace annulus::testing
