#include "runtime/engine/moe/layer_impl.h"

#include "comm/mesh.h"
#include "runtime/engine/fail_mesh.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::moe {

void Layer::Impl::require_tokens(const ConstTensorView& view, const char* name) const {
  const LayerConfig& c = shape.config;
  const std::int64_t most = shape.options.max_tokens;
  if (view.rank == 2 && view.dtype == c.dtype && view.shape[1] == c.hidden && view.shape[0] >= 0 &&
      view.shape[0] <= most && (c.hidden == 1 || view.strides[1] == 1) &&
      (view.data != nullptr || view.shape[0] == 0)) {
    return;
  }
  throw InvalidArgument(
      fmt::format("rank {}: moe layer: {} is {}, not {}[tokens <= {},{}] with a last stride of 1",
                  mesh->rank(), name, describe(view), name_of(c.dtype), most, c.hidden));
}

void Layer::Impl::require_call(const ForwardCall& call) const {
  require_tokens(call.x, "x");
  require_tokens(call.y, "y");
  const std::int64_t tokens = call.x.shape[0];
  const auto refuse = [&](const std::string& text) {
    throw InvalidArgument(fmt::format("rank {}: moe layer: {}", mesh->rank(), text));
  };
  if (call.y.shape[0] != tokens) {
    refuse(fmt::format("x has {} tokens, y has {}", tokens, call.y.shape[0]));
  }
  require_weights(shape.expert_shape(), shape.local_experts(), call.weights.experts, "experts");
  if (shape.config.shared_ffn > 0)
    require_weights(shape.shared_shape(), 1, call.weights.shared, "shared");
  if (call.given != nullptr) {
    check(*call.given);
    if (call.given->tokens != tokens || call.given->experts != shape.config.experts ||
        call.given->k != shape.config.k) {
      refuse(fmt::format("a routing of {} tokens, {} experts, k {}; expected {}, {}, {}",
                         call.given->tokens, call.given->experts, call.given->k, tokens,
                         shape.config.experts, shape.config.k));
    }
    return;
  }
  if (!shape.config.router) refuse("it has no router, so forward needs a routing");
  const std::size_t biases = call.weights.bias.size();
  if (biases != 0 && (shape.config.router->score != Score::sigmoid ||
                      biases != static_cast<std::size_t>(shape.config.experts))) {
    refuse(fmt::format("a bias of {} experts; sigmoid routers may have one of {}, others none",
                       biases, shape.config.experts));
  }
  const ConstTensorView& w = call.weights.router;
  const bool typed = w.dtype == DType::f32 || w.dtype == shape.config.dtype;
  if (w.rank != 2 || !typed || w.shape[0] != shape.config.experts ||
      w.shape[1] != shape.config.hidden || w.strides[1] != 1) {
    refuse(fmt::format("router weights are {}, not f32 or {}[{},{}] with a last stride of 1",
                       describe(w), name_of(shape.config.dtype), shape.config.experts,
                       shape.config.hidden));
  }
}

void Layer::Impl::require_sequences(const ForwardCall& call, const TokenFacts& facts) const {
  const LayerConfig& c = shape.config;
  if (call.given != nullptr || c.balance_alpha == 0.0 || c.balance_over != BalanceOver::sequences) {
    return;
  }
  const auto tokens = static_cast<std::size_t>(call.x.shape[0]);
  const auto outside = [&](std::int32_t s) { return s < 0 || s >= c.sequences; };
  if (facts.sequence_of.size() == tokens && std::ranges::none_of(facts.sequence_of, outside)) {
    return;
  }
  throw InvalidArgument(fmt::format(
      "rank {}: moe layer: set_sequences brought {} numbers for {} tokens; each must be in [0, {})",
      mesh->rank(), facts.sequence_of.size(), tokens, c.sequences));
}

void Layer::Impl::sum_over_ranks(std::span<std::int64_t> words) {
  comm::Communicator& communicator = *mesh->impl().communicator;
  rank_words_.resize(words.size() * static_cast<std::size_t>(communicator.size()));
  communicator.all_gather(std::as_bytes(words), std::as_writable_bytes(std::span(rank_words_)),
                          "moe loss counts");
  std::ranges::fill(words, 0);
  for (std::size_t i = 0; i < rank_words_.size(); ++i) words[i % words.size()] += rank_words_[i];
}

void Layer::Impl::require_call(const BackwardCall& call, const Step::Impl& step) const {
  const auto refuse = [&](const std::string& text) {
    throw InvalidArgument(fmt::format("rank {}: moe layer: {}", mesh->rank(), text));
  };
  if (!step.ready) refuse("backward needs a step whose forward is its last use");
  require_tokens(call.dy, "dy");
  require_tokens(call.x, "x");
  require_tokens(call.dx, "dx");
  const std::int64_t tokens = step.kept.tokens;
  if (call.dy.shape[0] != tokens || call.x.shape[0] != tokens || call.dx.shape[0] != tokens) {
    refuse(fmt::format("dy, x and dx have {}, {} and {} tokens, forward had {}", call.dy.shape[0],
                       call.x.shape[0], call.dx.shape[0], tokens));
  }
  require_weights(shape.expert_shape(), shape.local_experts(), call.weights.experts, "experts");
  require_gradients(shape.expert_shape(), shape.local_experts(), call.gradients.experts,
                    "expert gradients");
  if (shape.config.shared_ffn > 0) {
    require_weights(shape.shared_shape(), 1, call.weights.shared, "shared");
    require_gradients(shape.shared_shape(), 1, call.gradients.shared, "shared gradients");
  }
  const TensorView& g = call.gradients.router;
  if (step.routed && (g.rank != 2 || g.dtype != DType::f32 || g.shape[0] != shape.config.experts ||
                      g.shape[1] != shape.config.hidden || g.strides[1] != 1)) {
    refuse(fmt::format("router gradient is {}, not f32[{},{}] with a last stride of 1", describe(g),
                       shape.config.experts, shape.config.hidden));
  }
  const auto pairs = static_cast<std::size_t>(tokens * shape.config.k);
  if (!call.dweights.empty() && call.dweights.size() != pairs) {
    refuse(fmt::format("dweights has {} elements, {} tokens x {} slots are {}",
                       call.dweights.size(), tokens, shape.config.k, pairs));
  }
}

void Layer::Impl::require_alive() const {
  if (!dead) return;
  throw CommError(
      fmt::format("rank {}: an earlier call failed, the mesh is dead: rebuild it", mesh->rank()));
}

void Layer::Impl::fail(const std::exception_ptr& failure) {
  dead = true;
  try {
    std::rethrow_exception(failure);
  } catch (const Timeout& error) {
    annulus::engine::fail_mesh(mesh->impl(), error.what(), true);
  } catch (const CommError& error) {
    const std::string where = present();
    annulus::engine::fail_mesh(
        mesh->impl(), fmt::format("{}; this rank was at item '{}'", error.what(), where), false);
  } catch (const std::exception& error) {
    annulus::engine::fail_mesh(mesh->impl(), error.what(), false);
  }
}

void Layer::Impl::forward(const ForwardCall& call, Step::Impl& step) {
  require_call(call);
  require_more(call);
  require_sequences(call, step.next);
  guarded([&] {
    step.ready = false;
    step.facts = step.next;
    run(call, step);
    step.ready = true;
  });
}

void Layer::Impl::backward(const BackwardCall& call, Step::Impl& step) {
  require_call(call, step);
  guarded([&] {
    step.ready = false;
    run(call, step);
  });
}

}  // namespace annulus::moe
