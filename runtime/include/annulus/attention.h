#pragma once

#include <annulus/cost.h>
#include <annulus/export.h>
#include <annulus/layout.h>
#include <annulus/mesh.h>
#include <annulus/plan.h>
#include <annulus/problem.h>
#include <annulus/tensor.h>
#include <annulus/trace.h>

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace annulus {

struct SessionOptions {
  /// The largest problem whose attention will be bound; sizes the arena.
  Problem max_problem{};
  /// Sizes the arena for this algorithm and layout; automatic: for the one that is chosen.
  Algorithm algorithm = Algorithm::automatic;
  Layout layout = Layout::zigzag();
  Algorithm outer = Algorithm::ring;  ///< hybrid only
  /// The kernel to leave workspace for. auto: on the CPU any that does not need rows x keys of it,
  /// on a GPU the best one.
  std::string kernel = "auto";
  bool backward = true;
  std::int64_t tile_q = 0;  ///< the smallest AttentionOptions::tile_q to come; 0: the kernel's own
  std::int64_t tile_k = 0;
  /// The caller's memory instead of our own, 256-byte aligned. On GPUs, ranks that are processes
  /// share it by CUDA IPC, so it must come from cudaMalloc.
  std::span<std::byte> arena{};
  int threads = 1;  ///< per rank, on the CPU
  /// "cpu", "cuda", or "auto": cuda where it is built and a GPU is there.
  std::string backend = "auto";
  int device = -1;  ///< the GPU of this rank; -1: the ranks of a host take its GPUs in turn
  /// How data moves between GPUs: "peer" (one host, copy engines), "nccl", "composite" (peer inside
  /// a host, nccl between hosts), or "auto": by topology. On the CPU the mesh's own moves it.
  std::string transport = "auto";
  /// ncclComm_t of the mesh's ranks in rank order, on the ranks' GPUs; null: one is made where it
  /// is needed. It stays the caller's, but after a Timeout it was aborted and may not be used
  /// again.
  void* nccl = nullptr;
  /// Over peer, who moves the data: "pull" the receiver, "push" the sender, or "auto": the
  /// receiver, unless the sender's arena is cudaMalloc memory of another GPU of the receiver's
  /// process, whose reads CUDA orders behind what waits there. Ulysses groups then exchange in
  /// place: the owner of a tensor moves it, which "pull" allows of results alone, "push" of inputs.
  /// The same on every rank.
  std::string peer_copies = "auto";
  /// Not 0: so many neighbouring ranks count as one host, to try on one host what runs on several.
  int ranks_per_host = 0;
  /// Sizes the arena as AttentionOptions::backward_moves will ask; automatic: also for keys.
  BackwardMoves backward_moves = BackwardMoves::automatic;
};

/// Takes all memory once, shared by all layers. Collective. Outlives its Attentions. On a GPU its
/// calls are in stream order: two Attentions of one session may not run on two streams at once; and
/// it binds what its own options say once, so that Attentions find code loaded and room for their
/// lists: that takes as long as an Attention of max_problem (of 4 million tokens 0.2 to 1.4 s), and
/// twice the memory of its lists.
class ANNULUS_API Session {
 public:
  Session(Mesh& mesh, const SessionOptions& options);
  Session(Session&&) noexcept;
  ~Session();

  Mesh& mesh() const;
  std::int64_t arena_bytes() const;
  std::string backend() const;  ///< "cpu" or "cuda"
  int device() const;           ///< the GPU; -1 on the CPU
  /// By how much the GPU's used memory grew since the session was begun, whoever took it.
  std::int64_t device_bytes() const;
  std::string transport() const;         ///< never "auto"
  std::string transport_reason() const;  ///< why this one

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
  /// `gather` on GPUs, where copies run beside kernels (peer, a GPU a rank, receivers pull): one
  /// launch that takes keys as they arrive, and in backward lets the gradients of a head leave when
  /// it is done; with `deterministic` keys come in order of position, so that forward gives the
  /// same bits for any number of ranks. False: a launch a slice. The same on all ranks.
  bool gather_at_once = true;
  /// `ulysses`: launches of a pass, each of a slice of the rank's heads, so that the next slice
  /// comes and the one before goes while one is attended to; at most one for each head (backward:
  /// key/value head). 0: forward chosen from sizes where copies run beside kernels, elsewhere 1.
  /// The same on all ranks.
  int ulysses_slices = 0;
  /// Multiprocessors that a launch of an attention kernel takes at most, to leave some to kernels
  /// of communication, NCCL's or the caller's; 0: all. `hopper` keeps to it, whose blocks stay for
  /// the whole launch; other kernels' blocks come and go, and they and the CPU ignore it. Results
  /// do not depend on it, but for bits of `hopper` without `deterministic`.
  int sm_limit = 0;
  /// `ring`, and `hybrid` with outer ring: what travels in backward, keys and values with fp32 dk
  /// and dv, or queries with what belongs to them and fp32 dq. automatic: what sends fewer bytes:
  /// queries where there are as many key/value heads, or many more keys than queries. Results
  /// differ by the order of sums. The same on all ranks.
  BackwardMoves backward_moves = BackwardMoves::automatic;
};

/// Figures of the last forward or backward on this rank, in seconds and bytes.
struct CallStats {
  double total_s = 0;  ///< GPU: between events around the call; 0 for a call that a graph captured
  double exposed_s = 0;  ///< waiting for transfers with nothing to compute; GPU: see compute_alone
  std::int64_t bytes_sent = 0;
  std::int64_t flops = 0;  ///< counted by the kernels
};

/// Sequence-parallel attention; every rank of the mesh passes its own shard. ring and gather use
/// all ranks as one ring, ulysses uses them as one group; hybrid follows the mesh's shape.
/// q, out, dout, dq: [batch, seq_local, heads, dim]; k, v, dk, dv: [batch, seq_kv_local, heads_kv,
/// dim]; lse: [batch, heads, seq_local] f32. Strides are free but for the last, which is 1.
/// Construction is each rank's own: it waits for no rank, and throws InvalidArgument or Unsupported
/// there alone; the others learn of it in their first call, by its deadline. A rank may make more
/// Attentions than others. Calls are collective. Before the first one enqueues anything, ranks
/// agree on arguments, plan and pass by one small gather, else all throw CommError and the session
/// stays good. Calls throw InvalidArgument for a shape that does not fit, Timeout and CommError
/// once the mesh is unusable. Nothing is allocated in a call.
///
/// On a GPU neither construction nor destruction waits for what runs there, and both are possible
/// while calls of the session are under way, but not while a graph captures one. Lists of tiles lie
/// in memory of the session; it grows where more are held at a time than two of max_problem have,
/// as where the host makes plans faster than they are played. A first call that a graph captures
/// waits on the host for the upload of its lists. Exceptions: dropping an Attention whose calls a
/// graph captured waits for the GPU, since nothing says when replays end; code of a kernel that the
/// session's options do not take is loaded at construction; and ranks that are threads of one
/// process and share a GPU make the same Attentions, together.
///
/// On a GPU a call only enqueues on `stream`, and a CUDA graph may capture it. Tensors must stay
/// until the stream has passed the call. A rank that waits longer than the mesh's timeout_s ends
/// all waits on every rank; what was computed is void, and stats(), synchronize() and the next call
/// throw Timeout, which names the transfer, or CommError.
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
  /// On a GPU it waits for the last call.
  CallStats stats(Pass pass) const;
  /// Waits until calls on `stream` are over; throws as stats() does.
  void synchronize(Stream stream = nullptr) const;

  /// Plays the transfers of the last call again with nothing computed, to compare exposed time
  /// with. The tensors of that call must still be there; outputs and gradients become void.
  /// On a GPU it first waits for the session's last call; replays of graphs are for the caller to
  /// wait for.
  CallStats transfers_alone(Pass pass);
  /// The same with nothing moved; GPU only. total_s of the call minus this is exposed_s.
  CallStats compute_alone(Pass pass);

  /// Whether calls from here on note when each item begins and ends. Takes what that needs now, so
  /// that calls still allocate nothing and wait for nothing; a note costs a reading of the clock,
  /// on a GPU an event on each side of what is enqueued. Calls that a graph captures note nothing.
  void record(bool on);
  /// Of the last recorded call of this pass, for which it waits. Throws InvalidArgument where there
  /// is none.
  CallTrace recorded(Pass pass);

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
