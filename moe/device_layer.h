#pragma once

#include "moe/device.h"
#include "moe/experts.h"

#include <annulus/moe_layer.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace annulus::moe {

/// A layer whose experts all lie on one GPU: moe::Layer of expert degree 1, in device memory.
/// Forward waits once for the device, to learn how many rows each expert has; backward never. One
/// step at a time: backward is that of the last forward.
class DeviceLayer {
 public:
  /// Throws Unsupported for what it does not do: a layer without a router, capacity, losses.
  DeviceLayer(const LayerConfig& config, std::int64_t max_tokens, const Device& device);

  /// Everything in device memory, also weights.bias; the router's weights have the layer's dtype.
  void forward(const ConstTensorView& x, const LayerWeights& weights, const TensorView& y);
  void backward(const ConstTensorView& dy, const ConstTensorView& x, const LayerWeights& weights,
                const TensorView& dx, const LayerGradients& gradients);

  /// Of the last forward; device memory, [tokens][k].
  const std::int32_t* indices() const { return route_.indices; }
  const float* dweights() const { return dweights_; }
  const std::vector<ExpertRows>& expert_rows() const { return expert_rows_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  template <typename T = std::byte>
  T* take(std::int64_t count);
  void take_rows();
  void take_routing();

  void route(const ConstTensorView& x, const LayerWeights& weights);
  void route_backward(const ConstTensorView& x, const LayerWeights& weights,
                      const LayerGradients& gradients);
  void place();
  void scatter(const ConstTensorView& from, std::byte* to, bool weights);
  void combine(const TensorView& out, bool more);
  void read_expert_rows();
  RowBuffers row_buffers() const;
  RowBuffers shared_buffers(const ConstTensorView& x) const;
  ExpertRows all_tokens() const { return {.expert = 0, .first = 0, .rows = tokens_}; }

  LayerConfig config_;
  std::int64_t max_tokens_;
  Device device_;
  Experts experts_, shared_;
  std::int64_t tokens_ = 0;
  std::int64_t bytes_ = 0;
  std::vector<std::shared_ptr<void>> memory_;
  std::vector<ExpertRows> expert_rows_;
  std::vector<std::int64_t> layout_;  ///< first rows, then rows, of experts

  cuda::RouteParams route_;
  cuda::PlaceParams place_;
  float *logits_, *dlogits_, *dweights_, *row_weights_, *row_dweights_;
  std::byte *dlogits_high_, *dlogits_low_;  ///< in the layer's dtype
  std::byte *rows_, *y_rows_, *dy_rows_, *between_, *activated_, *dactivated_;
  std::byte *shared_between_, *shared_activated_, *shared_dactivated_;
  float* more_;  ///< [tokens][hidden], what is summed beside the rows
};

}  // namespace annulus::moe
