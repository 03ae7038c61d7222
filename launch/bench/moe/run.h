#pragma once

#include "launch/bench/moe/place.h"
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

  /// What a timed forward is given.
  enum class Given : std::uint8_t {
    asked,  ///< what the request says: a routing, or none with a router
    kept,   ///< the routing of the last forward before keep_routing(): no router runs
    balanced
  };
  /// Seconds on this rank, from a barrier until the results are there. Collective.
  double forward(Given given = Given::asked);
  double backward();
  /// Before results are read: where a GPU has them, they come to the host.
  void fetch();
  void keep_routing() { routing_ = step_.routing(); }

  const MoeRequest& request() const { return request_; }
  const MoeSource& source() const { return source_; }
  const moe::Layer& layer() const { return layer_; }
  const moe::Step& step() const { return step_; }
  const std::vector<std::int64_t>& tokens() const { return tokens_; }
  std::int64_t bytes() const { return layer_.bytes() + step_.bytes(); }

  struct Matrices {
    Tensor gate, up, down;
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
  void put_in_place();
  moe::ExpertWeights weights_of(const Matrices& m) const;
  moe::ExpertGradients gradients_of(const Matrices& m) const;
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
  MoePlace place_;  ///< after the tensors
};

}  // namespace annulus::launch
