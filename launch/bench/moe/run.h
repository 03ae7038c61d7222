#pragma once

#include "launch/bench/moe/source.h"
#include "launch/bench/tensors.h"

#include <annulus/annulus.h>

#include <cstdint>
#include <vector>

namespace annulus::launch {

/// One rank's tensors of a mixture of experts, and its layer.
class MoeRun {
 public:
  /// Collective. `tokens`: this rank's, by their number among all. `request` outlives it.
  MoeRun(Mesh& mesh, const MoeRequest& request, std::uint64_t seed,
         std::vector<std::int64_t> tokens, bool backward);

  /// Seconds on this rank, from a barrier on. Collective.
  double forward(bool balanced = false);
  double backward();

  const MoeRequest& request() const { return request_; }
  const MoeSource& source() const { return source_; }
  const moe::Layer& layer() const { return layer_; }
  const moe::Step& step() const { return step_; }
  const std::vector<std::int64_t>& tokens() const { return tokens_; }
  std::int64_t bytes() const { return layer_.bytes() + step_.bytes(); }

  struct Matrices {
    Tensor gate, up, down;
    moe::ExpertWeights weights() const { return {gate.view(), up.view(), down.view()}; }
    moe::ExpertGradients gradients() const { return {gate.view(), up.view(), down.view()}; }
  };
  const Tensor& y() const { return y_; }
  const Tensor& dx() const { return dx_; }
  const std::vector<float>& dweights() const { return dweights_; }
  const Matrices& dexperts() const { return dexperts_; }
  const Matrices& dshared() const { return dshared_; }
  const Tensor& drouter() const { return drouter_; }

 private:
  void fill_weights();
  void fill_tokens(bool backward);
  moe::LayerWeights weights() const;

  Mesh& mesh_;
  const MoeRequest& request_;
  MoeSource source_;
  std::vector<std::int64_t> tokens_;
  moe::Layer layer_;
  moe::Step step_;
  moe::Routing routing_, balanced_;
  Matrices experts_, shared_, dexperts_, dshared_;
  Tensor router_, drouter_;
  Tensor x_, y_, dy_, dx_;
  std::vector<float> dweights_;
};

}  // namespace annulus::launch
