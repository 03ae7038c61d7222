#pragma once

#include "runtime/engine/moe/config.h"
#include "runtime/engine/moe/step.h"

#include <annulus/moe_layer.h>

#include <cstdint>
#include <exception>
#include <memory>
#include <span>
#include <string>
#include <vector>

namespace annulus::moe {

/// The tensors of one call.
struct ForwardCall {
  ConstTensorView x;
  const LayerWeights& weights;
  const Routing* given = nullptr;  ///< null: the router decides
  TensorView y;
  Stream stream = nullptr;
};

struct BackwardCall {
  ConstTensorView dy, x;
  const LayerWeights& weights;
  TensorView dx;
  const LayerGradients& gradients;
  std::span<float> dweights;
  Stream stream = nullptr;
};

/// One rank's layer on any back end: what calls must bring, and what a failure does to the mesh.
struct Layer::Impl {
  Impl(Mesh& on, const engine::LayerShape& of) : mesh(&on), shape(of) {}
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  virtual ~Impl() = default;

  /// The collective half of construction.
  virtual void connect() {}

  void forward(const ForwardCall& call, Step::Impl& step);
  void backward(const BackwardCall& call, Step::Impl& step);

  virtual std::unique_ptr<Step::Impl> make_step() const = 0;
  virtual void synchronize(Stream /*stream*/) const {}
  /// Of sizes that fit.
  virtual void update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                           Stream stream) const = 0;
  virtual std::int64_t bytes() const = 0;
  virtual std::string kernel_used() const = 0;
  virtual std::string transport() const = 0;
  virtual int device() const { return -1; }
  virtual std::int64_t device_bytes() const { return 0; }

  Mesh* mesh;
  engine::LayerShape shape;
  bool dead = false;

 protected:
  /// Adds up words over all ranks of the mesh: the counts of losses.
  void sum_over_ranks(std::span<std::int64_t> words);

  /// Of a call that fits.
  virtual void run(const ForwardCall& call, Step::Impl& step) = 0;
  virtual void run(const BackwardCall& call, Step::Impl& step) = 0;
  /// Where this rank stands, for messages.
  virtual std::string present() const = 0;
  /// What this back end refuses besides.
  virtual void require_more(const ForwardCall& /*call*/) const {}

 private:
  std::vector<std::int64_t> rank_words_;  ///< of all ranks
  /// Runs `work`; a failure in it ends the mesh, and the text says where this rank stood.
  template <typename Work>
  void guarded(const Work& work) {
    require_alive();
    try {
      work();
    } catch (...) {
      fail(std::current_exception());
    }
  }
  void require_alive() const;
  [[noreturn]] void fail(const std::exception_ptr& failure);

  void require_tokens(const ConstTensorView& view, const char* name) const;
  void require_call(const ForwardCall& call) const;
  void require_sequences(const ForwardCall& call, const TokenFacts& facts) const;
  void require_call(const BackwardCall& call, const Step::Impl& step) const;
};

namespace engine {

/// On the CPU.
std::unique_ptr<Layer::Impl> make_host_layer(Mesh& mesh, const LayerShape& shape,
                                             std::uint32_t hash);
/// On a GPU, for the rank that is number `local_rank` on its host. Throws Unsupported where none is
/// built or found.
std::unique_ptr<Layer::Impl> make_gpu_layer(Mesh& mesh, const LayerShape& shape, std::uint32_t hash,
                                            int local_rank);

}  // namespace engine

}  // namespace annulus::moe
