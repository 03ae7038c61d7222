#pragma once

#include "comm/arena.h"
#include "comm/transport.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::comm {

/// The control plane of one rank: small, collective, every wait with a deadline. The payload goes
/// through transport().
class Communicator {
 public:
  virtual ~Communicator() = default;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual std::string_view host() const = 0;
  virtual Transport& transport() = 0;

  /// The GPU of a rank whose transport() moves no host memory, so that tensors are on GPUs; -1:
  /// the rank is free.
  virtual int device() const { return -1; }

  /// Deadline of every wait, in seconds.
  virtual double timeout_s() const = 0;

  /// Gathers size() equal parts in rank order. `what` names the wait in a Timeout.
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                          std::string_view what) = 0;
  virtual void barrier(std::string_view what) = 0;

  /// Collective, though ranks may ask for different sizes. Throws std::bad_alloc on a rank that
  /// has no memory, after the others went on.
  virtual std::unique_ptr<Arena> make_arena(std::int64_t bytes) {
    return std::make_unique<PrivateArena>(bytes);
  }

  /// Tells all ranks why this one fails and collects what they say within a short grace; an empty
  /// entry is a rank that did not answer. After abort() it hardly waits, since whoever aborts wants
  /// to be gone. Never throws; the mesh is dead afterwards.
  virtual std::vector<std::optional<std::string>> report_failure(
      std::string_view reason) noexcept = 0;

  /// From any thread or a signal handler: makes this rank's waits end with CommError.
  virtual void abort() noexcept = 0;
  virtual bool aborted() const noexcept = 0;
};

/// `size` communicators that share one process; give each to its own thread.
std::vector<std::unique_ptr<Communicator>> make_local_communicators(int size, double timeout_s);

/// False where no_mpi.cpp stands in.
bool mpi_built();

/// Duplicates the given communicator (MPI_Comm_c2f). `shared_memory`: ranks of one host map each
/// other's arenas where they can. Throws Unsupported where MPI is not built.
std::unique_ptr<Communicator> make_mpi_communicator(int fortran_communicator, double timeout_s,
                                                    bool shared_memory);

/// Of the ranks of an ncclComm_t, which is split and stays the caller's: nothing but gathers
/// through NCCL connects them. Throws Unsupported where NCCL is not built in or not found.
std::unique_ptr<Communicator> make_nccl_communicator(void* given, double timeout_s);

/// How many ranks before this one are on its host. Collective.
int local_rank(Communicator& communicator);

/// Text that differs between ranks makes all of them throw the same CommError that shows the
/// values, rank by rank. Used to agree on arguments and on a plan's hash before any payload.
void require_agreement(Communicator& communicator, std::string_view what, std::string_view value);
/// The text of that error; empty: all have the same.
std::string disagreement(Communicator& communicator, std::string_view what, std::string_view value);

/// All ranks throw if one of them brings an error text: InvalidArgument naming the lowest rank.
void require_success(Communicator& communicator, std::string_view what, std::string_view error);

}  // namespace annulus::comm
