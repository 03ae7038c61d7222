#include "comm/mesh.h"
#include "runtime/base/clock.h"
#include "runtime/engine/moe/host_layer.h"

namespace annulus::moe {

void HostLayer::shared_backward(const BackwardCall& call, Step::Impl& step) {
  if (shape.config.shared_ffn == 0) return;
  const ExpertRows all{.expert = 0, .first = 0, .rows = call.x.shape[0]};
  shared.backward(call.weights.shared, call.gradients.shared, call.gradients.assign, {&all, 1},
                  shared_buffers(call.x, step),
                  {.dy = call.dy.data,
                   .dy_stride = call.dy.strides[0],
                   .dactivated = shared_dactivated.data(),
                   .dx = more.data(),
                   .dx_dtype = DType::f32,
                   .dweights = nullptr},
                  context());
}

/// Dispatch of dy is what combine was, and combine of d(rows) is what dispatch was.
void HostLayer::backward_round(const BackwardCall& call, Step::Impl& step, std::int64_t round) {
  const ExchangePlan& plan = step.plan;
  const bool spilled = plan.rounds > 1;  // the step keeps the last round alone
  const Recompute recompute = shape.options.recompute;
  const ArrivedRows x_to = arrived(step, rows_of(step));
  const ArrivedRows dy_to = arrived(step, dy_rows.data());
  if (spilled || recompute == Recompute::dispatch) {
    const Routing* routing = spilled ? &step.kept : nullptr;
    exchange.start_dispatch(plan, round, call.x.data, stride_bytes(call.x), routing, x_to,
                            context());
    exchange.finish_dispatch(plan, round, routing, x_to, context());
  }
  exchange.start_dispatch(plan, round, call.dy.data, stride_bytes(call.dy), nullptr, dy_to,
                          context());
  if (spilled || recompute != Recompute::activation) {
    experts.first_half(call.weights.experts, expert_rows(plan, round), row_buffers(step),
                       context());
  }
  if (round == 0) shared_backward(call, step);
  exchange.finish_dispatch(plan, round, nullptr, dy_to, context());
  experts.backward(call.weights.experts, call.gradients.experts,
                   call.gradients.assign && round == 0, expert_rows(plan, round), row_buffers(step),
                   {.dy = dy_rows.data(),
                    .dy_stride = 0,
                    .dactivated = dactivated.data(),
                    .dx = y_rows.data(),
                    .dx_dtype = shape.config.dtype,
                    .dweights = row_dweights_.data()},
                   context());
  exchange.combine(plan, round, y_rows.data(), row_dweights_.data());
}

void HostLayer::run(const BackwardCall& call, Step::Impl& step) {
  const Deadline clock(1.0);
  comm::Communicator& communicator = *mesh->impl().communicator;
  const std::int64_t sent = communicator.transport().bytes_sent();
  flops_ = 0;
  exchange.flights().clear_exposed();
  for (std::int64_t round = 0; round < step.plan.rounds; ++round) {
    backward_round(call, step, round);
  }
  if (!call.dweights.empty()) take_dweights(step, call.dweights);
  if (step.routed) route_backward(call, step);
  kernel->sum({.dtype = shape.config.dtype,
               .tokens = call.x.shape[0],
               .k = shape.config.k,
               .width = shape.config.hidden,
               .at = step.plan.sent_at.data(),
               .rows = exchange.returned(),
               .more = shape.config.shared_ffn > 0 || step.routed
                           ? reinterpret_cast<const float*>(more.data())
                           : nullptr,
               .out = call.dx.data,
               .out_stride = call.dx.strides[0]},
              context());
  step.load.backward_bytes_sent = communicator.transport().bytes_sent() - sent;
  step.load.backward_flops = flops_;
  step.load.backward_exposed_s = exchange.flights().exposed_s();
  step.load.backward_s = clock.elapsed_s();
}

}  // namespace annulus::moe
