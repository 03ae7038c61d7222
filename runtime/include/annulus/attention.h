#pragma once

#include <annulus/cost.h>
#include <annulus/export.h>
#include <annulus/layout.h>
#include <annulus/mesh.h>
#include <annulus/plan.h>
#include <annulus/problem.h>
#include <annulus/tensor.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace annulus {

/// A CUDA stream as void*; ignored by CPU back ends, where calls return when the work is done.
using Stream = void*;

struct SessionOptions {
  /// The largest problem whose attention will be bound; sizes the arena.
  Problem max_problem{};
  /// Sizes the arena for this algorithm and layout; automatic: for the one that is chosen.
  Algorithm algorithm = Algorithm::automatic;
  Layout layout = Layout::zigzag();
  Algorithm outer = Algorithm::ring;  ///< hybrid only
  /// The kernel to leave workspace for; auto: any that does not need rows x keys of it.
  std::string kernel = "auto";
  bool backward = true;
  /// The caller's memory instead of our own, 256-byte aligned.
  std::span<std::byte> arena{};
  int threads = 1;  ///< per rank
};

/// Takes all memory once, shared by all layers. Collective. Outlives its Attentions.
class ANNULUS_API Session {
 public:
  Session(Mesh& mesh, const SessionOptions& options);
  Session(Session&&) noexcept;
  ~Session();

  Mesh& mesh() const;
  std::int64_t arena_bytes() const;

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

struct AttentionOptions {
  Algorithm algorithm = Algorithm::automatic;
  Layout layout = Layout::zigzag();
  Algorithm outer = Algorithm::ring;  ///< hybrid only
  std::string kernel = "auto";
  std::int64_t tile_q = 0;  ///< 0: the kernel's own
  std::int64_t tile_k = 0;
  bool deterministic = false;
  bool blocking_transfers = false;  ///< no overlap: to measure exposed communication against
};

/// Figures of the last forward or backward on this rank, in seconds and bytes.
struct CallStats {
  double total_s = 0;
  double exposed_s = 0;  ///< waiting for transfers with nothing to compute
  std::int64_t bytes_sent = 0;
  std::int64_t flops = 0;  ///< counted by the kernels
};

/// Sequence-parallel attention; every rank of the mesh passes its own shard. ring and gather use
/// all ranks as one ring, ulysses uses them as one group; hybrid follows the mesh's shape.
/// q, out, dout, dq: [batch, seq_local, heads, dim]; k, v, dk, dv: [batch, seq_kv_local, heads_kv,
/// dim]; lse: [batch, heads, seq_local] f32. Strides are free but for the last, which is 1.
/// Construction is collective: ranks agree on arguments and plan, else all throw CommError.
/// Calls are collective too. They throw InvalidArgument for a shape that does not fit, Timeout and
/// CommError once the mesh is unusable. Nothing is allocated in a call.
class ANNULUS_API Attention {
 public:
  Attention(Session& session, const Problem& problem, const AttentionOptions& options = {});
  Attention(Attention&&) noexcept;
  ~Attention();

  void forward(const ConstTensorView& q, const ConstTensorView& k, const ConstTensorView& v,
               const TensorView& out, const TensorView& lse, Stream stream = nullptr);
  void backward(const ConstTensorView& dout, const ConstTensorView& q, const ConstTensorView& k,
                const ConstTensorView& v, const ConstTensorView& out, const ConstTensorView& lse,
                const TensorView& dq, const TensorView& dk, const TensorView& dv,
                Stream stream = nullptr);

  /// Executed FLOPs are those of the last calls; collective (gathers them from all ranks).
  CostReport cost() const;
  const Sharding& layout() const;
  const Plan& plan(Pass pass) const;
  /// The algorithm that runs: never `automatic`.
  Algorithm algorithm() const;
  std::string kernel_used() const;
  std::string fallback_reason() const;  ///< empty: none
  CallStats stats(Pass pass) const;

  /// Plays the transfers of the last call again with nothing computed, to compare exposed time
  /// with. The tensors of that call must still be there; outputs and gradients become void.
  CallStats transfers_alone(Pass pass);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A partial result over some keys: o [rows, dim] normalised, lse [rows] natural log, both fp32.
/// (0, -inf) is the identity.
struct StateView {
  float* o = nullptr;
  float* lse = nullptr;
  std::int64_t rows = 0;
  std::int64_t dim = 0;
};

/// into <- merge(into, other): online softmax (Milakov and Gimelshein 2018; FlashAttention, Dao et
/// al. 2022, section 3.1). Throws InvalidArgument where shapes differ. Any order and grouping
/// gives the same result up to rounding; logits may be as large as fp32 holds.
ANNULUS_API void merge(const StateView& into, const StateView& other);

}  // namespace annulus
