#include "runtime/engine/moe/host_layer.h"

#include "comm/mesh.h"
#include "runtime/base/clock.h"

#include <algorithm>

namespace annulus::moe {
namespace {

constexpr std::int64_t kPad = 16;

/// Of every kernel: a product's blocks, six rows of an activation, two of a sum, for each thread.
std::int64_t workspace_bytes(const Kernel& kernel, const engine::LayerShape& shape) {
  const LayerConfig& c = shape.config;
  const std::int64_t row =
      std::max(6 * (std::max(c.ffn, c.shared_ffn) + kPad), 2 * (c.hidden + kPad));
  return std::max(kernel.workspace_bytes(shape.options.threads), shape.options.threads * row * 4);
}

ExchangeShape tagged(ExchangeShape shape, std::uint32_t hash) {
  shape.hash = hash;
  return shape;
}

}  // namespace

HostLayer::HostLayer(Mesh& on, const engine::LayerShape& of, std::uint32_t hash)
    : Impl(on, of),
      kernel(&moe::kernel("cpu")),
      exchange(*on.impl().communicator, *kernel, tagged(of.exchange_shape(), hash)),
      experts(*kernel, of.expert_shape()),
      shared(*kernel, of.shared_shape()) {
  const LayerConfig& c = shape.config;
  const std::int64_t element = size_of(c.dtype);
  const std::int64_t rows = shape.capacity;
  const std::int64_t tokens = shape.options.max_tokens;
  if (c.router) router.emplace(*c.router);
  workspace = Buffer(workspace_bytes(*kernel, shape));
  y_rows = Buffer(rows * shape.row_bytes());
  dy_rows = Buffer(rows * shape.row_bytes());
  activated = Buffer(rows * c.ffn * element);
  dactivated = Buffer(rows * c.ffn * element);
  if (shape.options.recompute == Recompute::dispatch) x_rows = Buffer(rows * shape.row_bytes());
  if (shape.options.recompute != Recompute::activation) {
    between = Buffer(rows * shape.expert_shape().between() * element);
  }
  if (c.shared_ffn > 0) {
    shared_activated = Buffer(tokens * c.shared_ffn * element);
    shared_dactivated = Buffer(tokens * c.shared_ffn * element);
  }
  if (c.shared_ffn > 0 || c.router) more = Buffer(tokens * c.hidden * 4);
  if (c.jitter != 0.0) {
    noisy_x_ = Buffer(tokens * shape.row_bytes());
    noisy_dx_.resize(static_cast<std::size_t>(tokens * c.hidden));
    noisy_row_.resize(static_cast<std::size_t>(c.hidden));
  }
  row_dweights_.resize(static_cast<std::size_t>(rows));
  dweights_.resize(static_cast<std::size_t>(tokens * c.k));
  if (c.router) dlogits_.resize(static_cast<std::size_t>(tokens * c.experts));
  expert_rows_.reserve(static_cast<std::size_t>(shape.local_experts()));
}

std::unique_ptr<Step::Impl> HostLayer::make_step() const {
  return std::make_unique<Step::Impl>(shape);
}

std::int64_t HostLayer::bytes() const {
  std::int64_t sum = exchange.bytes();
  for (const Buffer* b : {&workspace, &y_rows, &x_rows, &dy_rows, &between, &activated, &dactivated,
                          &shared_activated, &shared_dactivated, &more, &noisy_x_}) {
    sum += b->bytes();
  }
  return sum + static_cast<std::int64_t>(
                   (row_dweights_.size() + dweights_.size() + dlogits_.size() + noisy_dx_.size()) *
                   sizeof(float));
}

LaunchContext HostLayer::context() {
  return {.threads = shape.options.threads,
          .poll = [this] { exchange.flights().poll(); },
          .flops = &flops_,
          .workspace = {workspace.data(), static_cast<std::size_t>(workspace.bytes())}};
}

const std::vector<ExpertRows>& HostLayer::expert_rows(const ExchangePlan& plan,
                                                      std::int64_t round) {
  const std::int64_t local = shape.local_experts();
  const std::int64_t begin = round * shape.capacity;
  const std::int64_t end = begin + shape.capacity;
  expert_rows_.clear();
  for (std::int64_t e = 0; e < local; ++e) {
    const auto expert = static_cast<std::size_t>(shape.group.me * local + e);
    const std::int64_t first = plan.placement.expert_first[expert];
    const std::int64_t low = std::clamp(first, begin, end);
    const std::int64_t high = std::clamp(first + plan.placement.expert_rows[expert], begin, end);
    expert_rows_.push_back({.expert = e, .first = low - begin, .rows = high - low});
  }
  return expert_rows_;
}

RowBuffers HostLayer::row_buffers(Step::Impl& step) {
  return {.x = rows_of(step),
          .between = between_of(step),
          .activated = activated.data(),
          .weights = step.row_weights.data(),
          .y = y_rows.data(),
          .y_dtype = shape.config.dtype};
}

RowBuffers HostLayer::shared_buffers(const ConstTensorView& x, Step::Impl& step) {
  return {.x = x.data,
          .x_stride = x.strides[0],
          .between = step.shared_between.data(),
          .activated = shared_activated.data(),
          .weights = nullptr,
          .y = more.data(),
          .y_dtype = DType::f32};
}

void HostLayer::shared_forward(const ForwardCall& call, Step::Impl& step) {
  if (shape.config.shared_ffn == 0) return;
  const ExpertRows all{.expert = 0, .first = 0, .rows = call.x.shape[0]};
  shared.forward(call.weights.shared, {&all, 1}, shared_buffers(call.x, step), context());
}

void HostLayer::run(const ForwardCall& call, Step::Impl& step) {
  const Deadline clock(1.0);
  comm::Communicator& communicator = *mesh->impl().communicator;
  const std::int64_t sent = communicator.transport().bytes_sent();
  flops_ = 0;
  exchange.flights().clear_exposed();
  route(call, step);
  exchange.plan(step.kept, step.plan);
  const ExchangePlan& plan = step.plan;
  for (std::int64_t round = 0; round < plan.rounds; ++round) {
    const ArrivedRows to = arrived(step, rows_of(step));
    exchange.start_dispatch(plan, round, call.x.data, stride_bytes(call.x), &step.kept, to,
                            context());
    if (round == 0) shared_forward(call, step);
    exchange.finish_dispatch(plan, round, &step.kept, to, context());
    experts.forward(call.weights.experts, expert_rows(plan, round), row_buffers(step), context());
    exchange.combine(plan, round, y_rows.data(), nullptr);
  }
  kernel->sum(
      {.dtype = shape.config.dtype,
       .tokens = call.x.shape[0],
       .k = shape.config.k,
       .width = shape.config.hidden,
       .at = plan.sent_at.data(),
       .rows = exchange.returned(),
       .more = shape.config.shared_ffn > 0 ? reinterpret_cast<const float*>(more.data()) : nullptr,
       .out = call.y.data,
       .out_stride = call.y.strides[0]},
      context());
  fill_load(step);
  step.load.forward_bytes_sent = communicator.transport().bytes_sent() - sent;
  step.load.forward_flops = flops_;
  step.load.forward_exposed_s = exchange.flights().exposed_s();
  step.load.forward_s = clock.elapsed_s();
}

void HostLayer::fill_load(Step::Impl& step) const {
  const Placement& p = step.plan.placement;
  LayerLoad& load = step.load;
  load.expert_rows = p.expert_rows;
  load.rank_rows = p.rank_rows;
  load.experts = load_of(p.expert_rows);
  load.rank_max_over_mean = load_of(p.rank_rows).max_over_mean;
  load.rounds = step.plan.rounds;
  load.sent_tokens = step.plan.dedup;
  load.bad_tokens = step.status.bad_tokens;
}

namespace engine {

std::unique_ptr<Layer::Impl> make_host_layer(Mesh& mesh, const LayerShape& shape,
                                             std::uint32_t hash) {
  return std::make_unique<HostLayer>(mesh, shape, hash);
}

}  // namespace engine
}  // namespace annulus::moe
