#pragma once

#include <annulus/attention.h>
#include <annulus/export.h>
#include <annulus/problem.h>
#include <annulus/tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace annulus {

/// One local kernel and whether it serves a problem.
struct LocalKernelInfo {
  std::string name;     ///< "flash2"
  std::string backend;  ///< "cpu"
  std::int64_t tile_q = 0;
  std::int64_t tile_k = 0;
  std::string refusal;  ///< empty: it serves
};

/// Every kernel of a back end ("cpu", "cuda") that is built, best first, asked about the forward
/// pass of `problem`.
ANNULUS_API std::vector<LocalKernelInfo> local_kernels(const Problem& problem,
                                                       const std::string& backend = "cpu");

struct LocalOptions {
  std::string kernel = "auto";
  int threads = 1;
  std::int64_t tile_q = 0;  ///< 0: the kernel's own
  std::int64_t tile_k = 0;
  std::string backend = "cpu";  ///< or "cuda": tensors are on the GPU then
  int device = 0;
};

/// What one call did. Traffic is what the kernel's loops read and wrote of operands and of
/// materialised temporaries; blocks that a thread works in are neither. 0 where it does not count,
/// as on GPUs (HardwareCounters reads theirs).
struct LocalCounters {
  std::int64_t flops = 0;
  std::int64_t traffic_bytes = 0;
  std::int64_t materialized_bytes = 0;  ///< temporaries of the algorithm, without the output
  double seconds = 0;                   ///< between events around the call; 0 on the CPU
};

/// The forward pass of one kernel on one rank, without plan, mesh or transport: to compare kernels.
/// Tensors are those of Attention with seq_local = seq, compact or strided. Takes all memory when
/// made. Throws InvalidArgument for shapes, Unsupported where the kernel does not serve.
class ANNULUS_API LocalKernel {
 public:
  LocalKernel(const Problem& problem, const LocalOptions& options = {});
  LocalKernel(LocalKernel&&) noexcept;
  ~LocalKernel();

  /// On a GPU it enqueues on `stream`.
  void forward(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
               const TensorView& out, const TensorView& lse, Stream stream = nullptr);

  const std::string& name() const;
  /// Of the last call; on a GPU it waits for it.
  const LocalCounters& counters() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus
