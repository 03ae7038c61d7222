#pragma once

#include <annulus/export.h>
#include <annulus/log.h>

#include <memory>
#include <string>
#include <vector>

namespace annulus {

namespace detail {
struct MeshImpl;
}

/// The axes of the mesh. Attention uses ring * ulysses ranks: rank = ring_index * ulysses +
/// ulysses_index, so that ranks of one ulysses group are neighbours.
struct MeshShape {
  int ring = 1;
  int ulysses = 1;
  int expert = 1;

  int world() const { return ring * ulysses; }
  bool operator==(const MeshShape&) const = default;
};

struct MeshOptions {
  double timeout_s = 60.0;  ///< the deadline of every wait, set-up included
  LogOptions log{};
  /// MPI ranks of one host map each other's session memory where they can, instead of sending
  /// messages. Must be the same on all ranks.
  bool shared_memory = true;
};

/// The ranks that work together. Move-only handle; collective to create and to destroy. It never
/// initialises or finalises MPI.
class ANNULUS_API Mesh {
 public:
  /// Ranks of one process, one mesh for each thread that will be a rank.
  static std::vector<Mesh> threads(MeshShape shape, const MeshOptions& options = {});
  /// From a Fortran communicator handle (MPI_Comm_c2f); it is duplicated. Throws InvalidArgument
  /// unless shape.world() is its size, Unsupported where MPI is not built in.
  static Mesh from_mpi(int fortran_communicator, MeshShape shape, const MeshOptions& options = {});
  /// From an ncclComm_t alone: ranks, their order and their GPUs are its. It is split
  /// (ncclCommSplit), stays the caller's, and must outlive this call only; it may be non-blocking.
  /// The mesh gathers small messages through NCCL; tensors have to be on GPUs (back end cuda), and
  /// a Session chooses its transport as ever. A failure of another rank is heard in the next gather
  /// or at the deadline; a Timeout does not say who is missing. Throws InvalidArgument unless
  /// shape.world() is its size, Unsupported where NCCL is not built in or not found, Timeout.
  static Mesh from_nccl(void* communicator, MeshShape shape, const MeshOptions& options = {});
  /// One rank, this thread.
  static Mesh single(const MeshOptions& options = {});

  Mesh(Mesh&&) noexcept;
  Mesh& operator=(Mesh&&) noexcept;
  ~Mesh();

  int rank() const;
  int world() const;
  const MeshShape& shape() const;
  /// "local", "mpi" or "nccl".
  std::string transport() const;

  /// Ends every wait of this rank with CommError from another thread or a signal handler.
  void abort() noexcept;

  detail::MeshImpl& impl() const { return *impl_; }

 private:
  explicit Mesh(std::unique_ptr<detail::MeshImpl> impl);
  std::unique_ptr<detail::MeshImpl> impl_;
};

}  // namespace annulus
