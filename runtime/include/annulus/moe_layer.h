#pragma once

#include <annulus/export.h>
#include <annulus/mesh.h>
#include <annulus/moe.h>
#include <annulus/moe_experts.h>
#include <annulus/tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace annulus::moe {

/// Over which tokens a balancing loss counts selections. The parts of all ranks sum to the loss.
enum class BalanceOver : std::uint8_t {
  ranks,  ///< those that all ranks bring to a call: the global loss
  rank,   ///< each rank's own, a loss for each rank (Switch, Megatron's micro-batch): the sum of
          ///< these, not their mean
  sequences,  ///< those of each sequence, whichever ranks hold it: their mean, the sequence loss
};

/// A mixture-of-experts layer: y = sum over slots of w * expert(x), plus shared(x). The same on
/// every rank.
struct LayerConfig {
  std::int64_t hidden = 0;
  std::int64_t ffn = 0;  ///< width of an expert
  Activation activation = Activation::swiglu;
  DType dtype = DType::f32;  ///< of x, y, weights and what lies between: f32 or bf16
  std::int64_t experts = 0;  ///< of an expert group
  std::int64_t k = 1;        ///< slots of a token
  /// Width of the MLP that every token meets; n shared experts of one width are one of n times it.
  std::int64_t shared_ffn = 0;
  /// None: the caller brings each Routing. Its experts and k are the layer's.
  std::optional<RouterConfig> router{};
  Capacity capacity{};         ///< what the router drops; by default nothing
  double balance_alpha = 0.0;  ///< of the balancing loss; 0: none
  double z_beta = 0.0;         ///< z-loss over the tokens of all ranks; 0: none
  BalanceOver balance_over = BalanceOver::ranks;
  std::int64_t sequences = 1;  ///< that all ranks together bring to a call; Step::set_sequences
  /// The router, and it alone, sees x times 1 + jitter (2u - 1), rounded to dtype: moe::jitter.
  /// In [0, 1); Step::set_jitter.
  double jitter = 0.0;
};

/// How rows reach other ranks. Results have the same bits.
enum class Dispatch : std::uint8_t {
  automatic,  ///< tokens where at most 0.85 of the copies are expected to remain
  rows,       ///< a copy for each expert, straight into place
  tokens,     ///< once for each rank that has one of its experts, copied to them there
};

/// What backward computes again instead of forward keeping it.
enum class Recompute : std::uint8_t {
  activation,  ///< keeps the rows and what enters the activation
  hidden,      ///< keeps the rows; the first products run again
  dispatch,    ///< keeps the routing alone; rows travel again too
};

struct LayerOptions {
  /// Ranks that share the experts, neighbours in the mesh; divides the world and `experts`. 0: the
  /// mesh's `expert`. Independent of the degrees of attention. Groups hold the same experts: the
  /// gradients of their weights are the trainer's to sum over groups, like those of every other
  /// weight that ranks share.
  int expert_degree = 0;
  std::int64_t max_tokens = 0;  ///< the most that any rank brings to a call
  /// 0, exact: memory for whatever a routing brings, degree * max_tokens * min(k, local experts)
  /// rows; pages that no routing touches cost nothing. Else: for `capacity_factor` times the rows
  /// of a balanced load, max_tokens * k. What does not fit travels and is computed in further
  /// rounds: nothing is lost, and results have the same bits.
  double capacity_factor = 0.0;
  Dispatch dispatch = Dispatch::automatic;
  Recompute recompute = Recompute::activation;
  int threads = 1;  ///< per rank
  /// "cpu", "cuda", or "auto": cpu.
  /// On a GPU the layer has what its last forward left. `recompute` says what a step keeps where
  /// another call comes before its backward, in memory that make_step takes (docs/moe-layer.md).
  std::string backend = "auto";
  int device = -1;  ///< the GPU of this rank; -1: the ranks of a host take its GPUs in turn
  /// Between GPUs: "peer" (stores into each other's memory), "nccl" (messages; one GPU for each
  /// rank, and making and dropping the layer is collective), or "auto": peer where all ranks of all
  /// expert groups can, else nccl. Results have the same bits.
  std::string transport = "auto";
};

struct LayerWeights {
  ExpertWeights experts;  ///< this rank's: experts / degree of them, of index degree_rank * that on
  ExpertWeights shared{};            ///< of one expert, shared_ffn wide; alike on every rank
  ConstTensorView router{};          ///< [experts, hidden], f32 or the layer's dtype
  std::span<const float> bias = {};  ///< [experts] for selection alone; empty: none
};

/// Main gradients, f32. Each is added to, so that micro-batches accumulate; `assign` writes them
/// instead (experts without rows: exact zeros). Shared and router weights are on every rank: their
/// gradients here are this rank's part.
struct LayerGradients {
  ExpertGradients experts;
  ExpertGradients shared{};
  TensorView router{};
  bool assign = false;
};

/// Of the last forward and backward with a step, on this rank; nothing is communicated for it.
struct LayerLoad {
  std::vector<std::int64_t> expert_rows;  ///< [experts] of the group
  std::vector<std::int64_t> rank_rows;    ///< [degree]
  LoadStatistics experts;                 ///< max over mean of the experts
  double rank_max_over_mean = 1.0;        ///< of rank_rows: 2 means the busiest rank has twice
  std::int64_t dropped = 0;               ///< pairs of this rank that capacity dropped
  std::int64_t bad_tokens = 0;            ///< whose logits were no numbers
  std::int64_t rounds = 1;   ///< more than 1: capacity_factor was too small, it spilled
  bool sent_tokens = false;  ///< Dispatch::tokens
  std::int64_t forward_bytes_sent = 0, backward_bytes_sent = 0;
  std::int64_t forward_flops = 0, backward_flops = 0;  ///< executed products
  double forward_s = 0, backward_s = 0;
  double forward_exposed_s = 0, backward_exposed_s = 0;  ///< waiting with nothing to compute
};

/// What one forward leaves for its backward: routing, places and, as `recompute` says, activations.
/// A trainer has one for each layer and micro-batch that is between the two.
class ANNULUS_API Step {
 public:
  Step(Step&&) noexcept;
  Step& operator=(Step&&) noexcept;
  ~Step();

  /// Of the forwards that follow: noise is a hash of (seed, first_token + token, column), where
  /// first_token is this rank's. A step's backward has the noise of its forward.
  void set_jitter(std::uint64_t seed, std::int64_t first_token);
  /// Of the forwards that follow: the sequence, in [0, LayerConfig::sequences), of each token. Host
  /// memory, copied. Needed with BalanceOver::sequences.
  void set_sequences(std::span<const std::int32_t> sequence_of);

  /// As it was used: without what capacity dropped. On a GPU the first call after a forward waits
  /// for it.
  const Routing& routing() const;
  /// What the router chose, or the caller brought, before capacity dropped any. As routing().
  const Routing& selected() const;
  const LayerLoad& load() const;
  /// This rank's parts of the losses; those of all ranks sum to the loss. On a GPU as routing().
  double balance_loss() const;
  double z_loss() const;
  std::int64_t bytes() const;  ///< that it holds, touched or not

  struct Impl;
  Impl& impl() const { return *impl_; }

 private:
  friend class Layer;
  explicit Step(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// One shape of layer on one mesh; layers of a model that share a shape share it. It takes its
/// memory when it is made. Construction is collective over the mesh: ranks agree on configuration
/// and options, else all throw CommError. On a GPU tensors, bias and dweights are in its memory, a
/// Routing is not, the router's weights have the layer's dtype, and what a call computes is there
/// when `stream` has passed it, or after synchronize(). Calls are collective over the expert group;
/// they throw InvalidArgument for a shape that does not fit, Timeout (with rank and item) and
/// CommError once the mesh is unusable. A call takes no memory for data: lists of pairs grow in the
/// first calls, transports and threads keep their own books.
///
/// Numbers: products accumulate in f32; what enters a product and what leaves it is rounded once to
/// dtype; a token's rows are summed in f32 in the order of its slots, then the shared part, and
/// rounded once. Weights multiply the activation, before the second product. A token's results do
/// not depend on the ranks: they have the same bits for every expert_degree, transport, capacity
/// factor and dispatch. So have the gradients of weights, if the tokens of all ranks, in order, are
/// the same (docs/moe-layer.md).
class ANNULUS_API Layer {
 public:
  Layer(Mesh& mesh, const LayerConfig& config, const LayerOptions& options);
  Layer(Layer&&) noexcept;
  ~Layer();

  Step make_step() const;

  /// x, y [tokens, hidden], the last stride 1; tokens may be 0 and differ between ranks.
  void forward(const ConstTensorView& x, const LayerWeights& weights, const TensorView& y,
               Step& step, Stream stream = nullptr);
  /// With the caller's routing instead of the layer's router.
  void forward(const ConstTensorView& x, const LayerWeights& weights, const Routing& routing,
               const TensorView& y, Step& step, Stream stream = nullptr);

  /// Of the step's forward, once; x and weights are those of forward. Writes dx [tokens, hidden].
  /// dweights [tokens, k] f32, where it is given: of the routing's weights, 0 for -1.
  void backward(const ConstTensorView& dy, const ConstTensorView& x, const LayerWeights& weights,
                const TensorView& dx, const LayerGradients& gradients, Step& step,
                std::span<float> dweights = {}, Stream stream = nullptr);

  /// moe::update_bias of a bias that lies where the layer's tensors do; `counts` [experts] of the
  /// host, summed over ranks and micro-batches.
  void update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                   Stream stream = nullptr) const;

  /// Waits until calls on `stream` are over; nothing to do on the CPU.
  void synchronize(Stream stream = nullptr) const;

  int expert_degree() const;
  int expert_rank() const;             ///< of this rank in its group
  std::int64_t local_experts() const;  ///< first: expert_rank() * local_experts()
  std::int64_t capacity() const;       ///< rows that a rank takes in one round
  std::int64_t bytes() const;          ///< that it holds beside its steps
  std::string kernel_used() const;
  std::string backend() const;  ///< "cpu" or "cuda"
  int device() const;           ///< the GPU; -1 on the CPU
  /// By how much the GPU's used memory grew since the layer was begun, whoever took it; 0: CPU.
  std::int64_t device_bytes() const;
  /// How rows travel: "peer" or "nccl" between GPUs, else the mesh's own transport.
  std::string transport() const;

  struct Impl;

 private:
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus::moe
