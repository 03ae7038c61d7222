#pragma once

#include "moe/balance.h"
#include "moe/device_peers.h"
#include "moe/device_room.h"
#include "moe/exchange_plan.h"
#include "moe/experts.h"

#include <annulus/moe_layer.h>

#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace annulus::moe {

/// How many rows a layer holds, and how they come.
struct DeviceRows {
  std::int64_t max_tokens = 0;  ///< of any rank
  std::int64_t capacity = 0;    ///< rows at once; more come in rounds. 0: whatever a routing brings
  bool once_a_rank = false;     ///< tokens travel once a rank and are copied to their rows there
  Recompute recompute = Recompute::dispatch;  ///< what steps keep where another call comes between
};

/// What a step keeps of its forward where another call displaced it from the layer.
struct KeptRows {
  DeviceRoom room;
  std::byte* x = nullptr;        ///< [capacity][hidden]
  float* weights = nullptr;      ///< [capacity]
  std::byte* between = nullptr;  ///< [capacity][between]; null: the first products run again
  std::uint64_t call = 0;        ///< the forward that they are of; 0: they are of none
};

/// What one forward of a DeviceLayer leaves for its backward: the routing, and places of rows.
struct DeviceStep {
  DeviceRoom room;
  float* logits = nullptr;           ///< [tokens][experts]; null: no router
  std::int32_t* selected = nullptr;  ///< [tokens][k], as all that follow: before capacity
  float* selected_weights = nullptr;
  std::int32_t* indices = nullptr;  ///< what capacity left; without one the same memory
  float* weights = nullptr;
  std::int32_t* rank = nullptr;  ///< of the group
  std::int64_t* row = nullptr;
  std::int64_t* unique_of = nullptr;  ///< place among the tokens that travel to that rank
  std::int64_t* sent_at = nullptr;    ///< place in sent order; null: rows are not sent in messages
  std::int32_t* set_of = nullptr;     ///< [tokens]; null: no sets of tokens
  std::int64_t* scope = nullptr;      ///< of losses, [sets][experts] then [sets]; null: no losses
  double* losses = nullptr;           ///< [2]: balancing loss and z-loss, this rank's parts
  std::shared_ptr<KeptRows> kept;     ///< null: x is sent again

  // On the host.
  std::int64_t tokens = 0;
  std::uint64_t call = 0;        ///< the layer's forwards until then
  bool routed = false;           ///< by the layer's router
  TokenFacts facts;              ///< for the next forward; not to be changed until its backward
  LossScope loss_scope;          ///< as `scope`
  std::int64_t loss_tokens = 0;  ///< of all ranks
  std::int64_t bad_tokens = 0;
  std::int64_t dropped = 0;
  /// [ranks][counts_width]: pairs by expert, bad tokens, dropped pairs, tokens by rank that has one
  /// of their experts.
  std::vector<std::int64_t> counts;
  std::int64_t counts_width = 0;
  std::vector<ExpertRows> expert_rows;  ///< of this rank's experts, of all rounds
  ExchangePlan plan;                    ///< counts and first rows alone; of messages
  std::int64_t rounds = 1;              ///< the same on every rank
  bool sent_tokens = false;             ///< once a rank
};

/// Of a kernel that moves rows beside products: stores wait for nobody, so that few will do.
inline constexpr int kBlocksBeside = 256;

/// A layer in device memory: moe::Layer, one rank of it. Rows travel by stores into the memory of
/// the rank that has the expert, and come back by loads from there. Forward waits for its device
/// once, to learn how many rows each expert has; with other ranks, which meet on the host, both
/// passes wait twice more for each round: before rows that arrived are used, and before results are
/// loaded.
class DeviceLayer {
 public:
  /// `peers`: of expert degrees above 1; outlives the layer. Throws Unsupported beyond what kernels
  /// serve.
  DeviceLayer(const LayerConfig& config, const DeviceRows& rows, const Device& device,
              DevicePeers* peers = nullptr);

  /// What `ranks` ranks that meet need to have of memory that all of them address.
  static std::int64_t region_bytes(const LayerConfig& config, const DeviceRows& rows,
                                   std::int64_t ranks);

  DeviceStep make_step() const;

  /// From here on: where calls are enqueued, and what executed FLOPs are added to (may be null).
  void set_context(void* stream, std::int64_t* flops) {
    device_.context.stream = stream;
    device_.context.flops = flops;
  }

  /// Tensors and weights.bias in device memory; the router's weights have the layer's dtype.
  /// `given`: of the host, and checked; null: the router decides.
  void forward(const ConstTensorView& x, const LayerWeights& weights, const TensorView& y,
               DeviceStep& step, const Routing* given = nullptr);
  /// Of the step's forward, once. Where another call came between, the step has what
  /// DeviceRows::recompute says, and the rest is sent and computed again. `dweights`: [tokens][k]
  /// in device memory; may be null.
  void backward(const ConstTensorView& dy, const ConstTensorView& x, const LayerWeights& weights,
                const TensorView& dx, const LayerGradients& gradients, DeviceStep& step,
                float* dweights = nullptr);

  /// How losses learn the counts of all ranks of the mesh; without it they are those of this rank.
  void set_sum_over_ranks(SumOverRanks sum) { sum_over_ranks_ = std::move(sum); }
  /// Of counts on the host, and a bias in device memory.
  void update_bias(std::span<const std::int64_t> counts, float step, float* bias,
                   void* stream) const;

  std::int64_t capacity() const { return capacity_; }  ///< rows
  std::int64_t bytes() const { return room_.bytes(); }
  const Device& device() const { return device_; }

 private:
  /// Where the parts of a region lie, in bytes.
  struct Region {
    std::int64_t rows, y_rows, dy_rows, weights, dweights;
    std::int64_t tokens, source_of;  ///< [ranks][max_tokens] rows that wait to be expanded, and how
    std::int64_t bytes;
  };
  static Region region_of(const LayerConfig& config, const DeviceRows& rows, std::int64_t ranks);

  void take_routing();
  void take_balance();
  void take_rows();
  void take_messages();
  std::byte* region(std::int64_t rank) const {
    return own_region_ != nullptr ? own_region_ : peers_->region(static_cast<int>(rank));
  }
  std::byte* own(std::int64_t part) const { return region(me_) + part; }
  float* own_values(std::int64_t part) const { return reinterpret_cast<float*>(own(part)); }

  bool in_messages() const { return peers_ != nullptr && peers_->carrier() != nullptr; }
  std::int64_t row_bytes() const { return config_.hidden * size_of(config_.dtype); }
  std::int64_t between_bytes() const {
    return hidden_width(config_.activation, config_.ffn) * size_of(config_.dtype);
  }

  void choose(const ConstTensorView& x, const LayerWeights& weights, const Routing* given,
              DeviceStep& step);
  // device_layer_balance.cpp
  ConstTensorView router_input(const ConstTensorView& x, const DeviceStep& step);
  void add_noise(const DeviceStep& step);
  cuda::LossParams loss_params(const DeviceStep& step) const;
  std::int64_t loss_words() const;
  std::int64_t counts_width() const { return config_.experts + 2 + ranks_; }
  void count_losses(DeviceStep& step);
  void sum_losses(std::span<const std::int64_t> words, DeviceStep& step);
  void drop(DeviceStep& step);

  void route(const ConstTensorView& x, const LayerWeights& weights, DeviceStep& step);
  void route_backward(const ConstTensorView& x, const LayerWeights& weights,
                      const LayerGradients& gradients, const DeviceStep& step,
                      const float* dweights);
  void place(DeviceStep& step);
  void lay_out(DeviceStep& step) const;

  // device_layer_kept.cpp
  enum class Rows : std::uint8_t { here, kept, gone };
  Rows rows_of(const DeviceStep& step) const;
  std::shared_ptr<KeptRows> make_kept() const;
  void hold(DeviceStep& step);
  void save_held(const KeptRows* next);
  void make_way(const DeviceStep& step);
  RowBuffers buffers_of(const DeviceStep& step) const;

  // device_layer_rows.cpp
  std::span<const ExpertRows> expert_rows(const DeviceStep& step, std::int64_t round);
  cuda::ScatterParams scatter_of(const ConstTensorView& from, std::int64_t part,
                                 const DeviceStep& step, std::int64_t round) const;
  void send(const ConstTensorView& from, std::int64_t part, bool weights, const DeviceStep& step,
            std::int64_t round, void* stream);
  void send_copies(const ConstTensorView& from, std::int64_t part, bool weights,
                   const DeviceStep& step, std::int64_t round, void* stream);
  void send_again(const ConstTensorView& x, const DeviceStep& step, std::int64_t round,
                  void* stream);
  void arrive(const char* phase, std::int64_t part, bool weights, const DeviceStep& step,
              std::int64_t round, void* stream);
  void send_tokens(const ConstTensorView& from, bool weights, const DeviceStep& step, void* stream);
  void expand(std::int64_t part, const DeviceStep& step);
  /// Where rows may travel beside what context.stream computes: it follows that stream. Without
  /// something to compute meanwhile, context.stream.
  void* begin_travel(bool beside);
  void meet(const char* phase, void* stream);
  void finish_round(const DeviceStep& step, std::int64_t round, float* dweights);
  void combine(const TensorView& out, bool more, const DeviceStep& step);

  // device_layer_messages.cpp
  void place_messages(DeviceStep& step);
  void add_messages(const DeviceStep& step, std::int64_t round, std::byte* sent, std::byte* rows,
                    std::int64_t size, bool out);
  void pack(const ConstTensorView& from, bool weights, const DeviceStep& step, void* stream);
  void exchange_rows(const char* phase, std::int64_t part, bool weights, const DeviceStep& step,
                     std::int64_t round, void* stream);
  void return_rows(const char* phase, bool values, const DeviceStep& step, std::int64_t round);
  void take_values(const DeviceStep& step, float* dweights);

  void shared_forward(const ConstTensorView& x, const LayerWeights& weights,
                      const DeviceStep& step);
  void shared_backward(const ConstTensorView& dy, const ConstTensorView& x,
                       const LayerWeights& weights, const LayerGradients& gradients,
                       const DeviceStep& step, bool again);
  void forward_round(const ConstTensorView& x, const LayerWeights& weights, const DeviceStep& step,
                     std::int64_t round);
  void backward_round(const ConstTensorView& dy, const ConstTensorView& x,
                      const LayerWeights& weights, const LayerGradients& gradients,
                      const DeviceStep& step, std::int64_t round, float* dweights);
  RowBuffers row_buffers() const;
  RowBuffers shared_buffers(const ConstTensorView& x) const;

  LayerConfig config_;
  DeviceRows rows_;
  std::int64_t max_tokens_;
  Device device_;
  DevicePeers* peers_;
  std::int64_t ranks_, me_;
  std::int64_t capacity_;
  Region region_;
  Experts experts_, shared_;
  std::uint64_t calls_ = 0;
  std::uint64_t held_ = 0;             ///< the call whose rows and `between` lie here; 0: none
  std::weak_ptr<KeptRows> held_kept_;  ///< of its step, which may be gone
  std::int64_t held_rows_ = 0;
  DeviceRoom room_;

  SumOverRanks sum_over_ranks_;
  std::vector<std::int64_t> mine_, words_;
  std::int64_t* bias_counts_;
  std::int32_t* drop_room_;
  double* loss_terms_;
  std::byte* noisy_x_;
  float* noisy_dx_;

  cuda::RouteParams route_;
  cuda::PlaceParams place_;
  std::int64_t* matrix_;
  cuda::PlaceParams sent_;           ///< sent order: a placement of this rank alone
  std::byte* own_region_ = nullptr;  ///< where nobody else addresses it
  std::byte* packed_ = nullptr;      ///< [tokens][k] rows in sent order
  float *packed_values_ = nullptr, *back_values_ = nullptr;  ///< [tokens][k] in sent order
  std::vector<RowMessage> messages_;
  float *dlogits_, *dweights_;
  std::byte *dlogits_high_, *dlogits_low_;  ///< in the layer's dtype
  std::byte *between_, *activated_, *dactivated_;
  std::byte *shared_between_, *shared_activated_, *shared_dactivated_;
  std::byte* back_;        ///< [tokens][k] rows that came back in rounds
  std::int64_t* back_at_;  ///< [tokens][k]
  std::vector<ExpertRows> round_rows_;
  float* more_;  ///< [tokens][hidden], what is summed beside the rows
};

}  // namespace annulus::moe
