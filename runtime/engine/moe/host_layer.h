#pragma once

#include "moe/exchange.h"
#include "moe/experts.h"
#include "runtime/base/buffer.h"
#include "runtime/engine/moe/layer_impl.h"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace annulus::moe {

/// Ranks of the CPU, whose rows travel by the mesh's transport.
class HostLayer final : public Layer::Impl {
 public:
  HostLayer(Mesh& on, const engine::LayerShape& of, std::uint32_t hash);

  std::unique_ptr<Step::Impl> make_step() const override;
  std::int64_t bytes() const override;
  std::string kernel_used() const override { return std::string(kernel->name); }
  std::string transport() const override { return mesh->transport(); }
  void update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                   Stream /*stream*/) const override {
    moe::update_bias(counts, step, bias);
  }

 protected:
  void run(const ForwardCall& call, Step::Impl& step) override;
  void run(const BackwardCall& call, Step::Impl& step) override;
  std::string present() const override { return exchange.flights().present(); }

 private:
  const Kernel* kernel;
  Exchange exchange;
  Experts experts;
  Experts shared;
  std::optional<Router> router;

  LaunchContext context();
  std::int64_t stride_bytes(const ConstTensorView& view) const {
    return view.strides[0] * size_of(view.dtype);
  }
  std::byte* rows_of(Step::Impl& step) {
    return step.rows.bytes() > 0 ? step.rows.data() : x_rows.data();
  }
  std::byte* between_of(Step::Impl& step) {
    return step.between.bytes() > 0 ? step.between.data() : between.data();
  }
  ArrivedRows arrived(Step::Impl& step, std::byte* rows) {
    return {rows, y_rows.data(), step.row_weights.data(), step.row_unique.data()};
  }
  const std::vector<ExpertRows>& expert_rows(const ExchangePlan& plan, std::int64_t round);
  RowBuffers row_buffers(Step::Impl& step);
  RowBuffers shared_buffers(const ConstTensorView& x, Step::Impl& step);

  // router_pass.cpp
  void route(const ForwardCall& call, Step::Impl& step);
  /// What the router sees: x, with noise where the layer has some.
  ConstTensorView router_input(const ConstTensorView& x, const TokenFacts& facts);
  void take_dweights(const Step::Impl& step, std::span<float> out) const;
  void route_backward(const BackwardCall& call, Step::Impl& step);

  void shared_forward(const ForwardCall& call, Step::Impl& step);
  void shared_backward(const BackwardCall& call, Step::Impl& step);
  void backward_round(const BackwardCall& call, Step::Impl& step, std::int64_t round);
  void fill_load(Step::Impl& step) const;

  std::int64_t flops_ = 0;
  std::vector<ExpertRows> expert_rows_;
  Buffer workspace;
  Buffer y_rows;  ///< results; before that, tokens that wait to be expanded; then d(rows)
  Buffer x_rows;  ///< where the step does not keep them
  Buffer dy_rows;
  Buffer between;  ///< where the step does not keep it
  Buffer activated, dactivated;
  Buffer shared_activated, shared_dactivated;
  Buffer more;                       ///< [max_tokens][hidden] f32: what is summed beside the rows
  std::vector<float> row_dweights_;  ///< [capacity]
  std::vector<float> dweights_, dlogits_;
  Buffer noisy_x_;               ///< [max_tokens][hidden], with jitter
  std::vector<float> noisy_dx_;  ///< the same, f32
  std::vector<float> noisy_row_;
  std::vector<std::int64_t> scope_words_;
  LossRoom loss_room_;
  CapacityRoom capacity_room_;
};

}  // namespace annulus::moe
