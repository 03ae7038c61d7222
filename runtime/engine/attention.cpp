#include <annulus/attention.h>

#include "attention/execute/launches.h"
#include "runtime/base/host_range.h"
#include "runtime/engine/bound_pass.h"
#include "runtime/engine/device_pass.h"
#include "runtime/engine/request.h"
#include "runtime/engine/shapes.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <utility>

namespace annulus {
namespace {

TensorView writable(const ConstTensorView& view) {
  TensorView out;
  // Slots are not typed by constness; plans only read those of inputs (the plan checker shows it).
  out.data = const_cast<void*>(view.data);
  out.dtype = view.dtype;
  out.rank = view.rank;
  out.shape = view.shape;
  out.strides = view.strides;
  return out;
}

}  // namespace

struct Attention::Impl {
  Impl(Session& s, const Problem& p, const AttentionOptions& o) : session(s), options(o) {
    comm::Communicator& communicator = session.impl().communicator();
    // To bind takes memory and loads code, for which the driver waits until the GPU is idle, and
    // holds up all threads of the process: what they enqueued before must be whole.
    if (session.impl().device && session.impl().device->share_gpus()) {
      communicator.barrier("attention: ranks that share a GPU");
    }
    std::exception_ptr error;
    std::string summary;
    try {
      bind(p);
      summary =
          fmt::format("algorithm {}, world {}, kernel {}, plan {:08x}", name_of(decision.algorithm),
                      session.mesh().world(), choice.kernel->name, hash());
    } catch (...) {
      error = std::current_exception();
    }
    engine::agree_on_errors(communicator, "attention", error);
    comm::require_agreement(communicator, "attention", summary);
    session.impl().log().debug("attention: {} ({})", summary, decision.reason);
    if (!choice.fallback_reason.empty() && session.mesh().rank() == 0) {
      session.impl().log().warn("kernel {} is used instead of {}: {}", choice.kernel->name,
                                options.kernel, choice.fallback_reason);
    }
  }

  void bind(const Problem& p) {
    if (options.sm_limit < 0) {
      throw InvalidArgument(fmt::format(
          "attention sm_limit {}: must be >= 1, or 0 for all multiprocessors", options.sm_limit));
    }
    problem = resolved(p);
    const bool both = session.impl().options.backward;
    decision = engine::decide(problem, options.layout, options.algorithm, session.mesh(), both);
    choice = engine::choose_kernel(
        options.kernel,
        attn::kernel_query(problem, both ? Pass::backward : Pass::forward, session.impl().backend));
    forward = bind_pass(Pass::forward);
    if (both) backward = bind_pass(Pass::backward);
    shapes.emplace(problem, forward->plan().sharding(), session.mesh().rank());
  }

  std::unique_ptr<engine::BoundPass> bind_pass(Pass pass) {
    Plan plan = make_plan(
        engine::plan_request(problem, options.layout, decision, pass, *choice.kernel,
                             {options.outer, options.tile_q, options.tile_k, gather(),
                              ulysses_slices(), options.backward_moves, options.deterministic}));
    RankPlan rank = plan.rank(session.mesh().rank());
    Session::Impl& on = session.impl();
    if (on.device) {
      return engine::make_device_pass(on, std::move(plan), std::move(rank), *choice.kernel,
                                      options.deterministic, options.sm_limit);
    }
    return engine::make_host_pass(on, std::move(plan), std::move(rank), *choice.kernel);
  }

  /// The session's arena is large enough either way.
  GatherLaunch gather() const {
    const Session::Impl& on = session.impl();
    if (!options.gather_at_once || !on.device || !on.device->copies_beside_kernels()) {
      return GatherLaunch::slices;
    }
    return options.deterministic ? GatherLaunch::in_position : GatherLaunch::on_arrival;
  }

  /// Where transfers take time from kernels, or wait for them, slices gain nothing.
  int ulysses_slices() const {
    const Session::Impl& on = session.impl();
    if (options.ulysses_slices != 0) return options.ulysses_slices;
    return on.device && on.device->copies_beside_kernels() ? 0 : 1;
  }

  std::uint32_t hash() const {
    const std::uint32_t f = forward->plan().hash();
    return backward ? f ^ (backward->plan().hash() << 1U) : f;
  }

  engine::BoundPass& pass(Pass which) const {
    if (which == Pass::forward) return *forward;
    if (!backward) throw InvalidArgument("attention: the session was made with backward = false");
    return *backward;
  }

  void set(engine::BoundPass& bound, Role role, const TensorView& tensor) const {
    shapes->require(role, tensor);
    bound.set(role, tensor);
  }

  void run(engine::BoundPass& bound, Stream stream) const {
    const HostRange range(&bound == forward.get() ? forward_range : backward_range);
    bound.run(options.blocking_transfers ? engine::RunMode::blocking : engine::RunMode::overlapped,
              stream);
  }

  Session& session;
  AttentionOptions options;
  Problem problem;
  engine::Decision decision;
  engine::KernelChoice choice;
  std::unique_ptr<engine::BoundPass> forward;
  std::unique_ptr<engine::BoundPass> backward;
  std::optional<engine::LocalShapes> shapes;
  RangeName forward_range = range_name("annulus forward");
  RangeName backward_range = range_name("annulus backward");
};

Attention::Attention(Session& session, const Problem& problem, const AttentionOptions& options)
    : impl_(std::make_unique<Impl>(session, problem, options)) {}
Attention::Attention(Attention&&) noexcept = default;
Attention::~Attention() = default;

void Attention::forward(const ConstTensorView& q, const ConstTensorView& k,
                        const ConstTensorView& v, const TensorView& out, const TensorView& lse,
                        Stream stream) {
  engine::BoundPass& bound = impl_->pass(Pass::forward);
  impl_->set(bound, Role::q, writable(q));
  impl_->set(bound, Role::k, writable(k));
  impl_->set(bound, Role::v, writable(v));
  impl_->set(bound, Role::out, out);
  impl_->set(bound, Role::lse, lse);
  impl_->run(bound, stream);
}

void Attention::backward(const ConstTensorView& dout, const ConstTensorView& q,
                         const ConstTensorView& k, const ConstTensorView& v,
                         const ConstTensorView& out, const ConstTensorView& lse,
                         const TensorView& dq, const TensorView& dk, const TensorView& dv,
                         Stream stream) {
  engine::BoundPass& bound = impl_->pass(Pass::backward);
  impl_->set(bound, Role::dout, writable(dout));
  impl_->set(bound, Role::q, writable(q));
  impl_->set(bound, Role::k, writable(k));
  impl_->set(bound, Role::v, writable(v));
  impl_->set(bound, Role::out, writable(out));
  impl_->set(bound, Role::lse, writable(lse));
  impl_->set(bound, Role::dq, dq);
  impl_->set(bound, Role::dk, dk);
  impl_->set(bound, Role::dv, dv);
  impl_->run(bound, stream);
}

CallStats Attention::transfers_alone(Pass pass) {
  return impl_->pass(pass).replay(engine::RunMode::transfers_alone);
}

CallStats Attention::compute_alone(Pass pass) {
  return impl_->pass(pass).replay(engine::RunMode::compute_alone);
}

void Attention::record(bool on) {
  impl_->forward->record(on);
  if (impl_->backward) impl_->backward->record(on);
}

CallTrace Attention::recorded(Pass pass) { return impl_->pass(pass).recorded(); }

void Attention::synchronize(Stream stream) const { impl_->pass(Pass::forward).synchronize(stream); }

CostReport Attention::cost() const {
  const Problem& p = impl_->problem;
  Mesh& mesh = impl_->session.mesh();
  CostRequest request;
  request.batch = p.batch;
  request.heads = p.heads;
  request.heads_kv = *p.heads_kv;
  request.head_dim = p.head_dim;
  request.head_dim_v = *p.head_dim_v;
  request.seq = p.seq;
  request.seq_kv = *p.seq_kv;
  request.sp = mesh.world();
  request.full_pairs = p.seq * *p.seq_kv;
  request.masked_pairs_by_rank = count_pairs_by_rank(p, layout());
  CostReport report = price(request);

  const auto flops = [&](const std::unique_ptr<engine::BoundPass>& bound) {
    return std::array<std::int64_t, 2>{bound ? bound->rank().flops : 0,
                                       bound ? bound->stats().flops : 0};
  };
  const std::array<std::array<std::int64_t, 2>, 2> mine{flops(impl_->forward),
                                                        flops(impl_->backward)};
  std::vector<std::array<std::array<std::int64_t, 2>, 2>> all(
      static_cast<std::size_t>(mesh.world()));
  impl_->session.impl().communicator().all_gather(
      std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "cost report");
  for (const auto& rank : all) {
    report.planned.flops_rank_layer.push_back(rank[0][0]);
    report.executed.flops_rank_layer.push_back(rank[0][1]);
    if (!impl_->backward) continue;
    report.planned.backward_flops_rank_layer.push_back(rank[1][0]);
    report.executed.backward_flops_rank_layer.push_back(rank[1][1]);
  }
  return report;
}

const Sharding& Attention::layout() const { return impl_->forward->plan().sharding(); }
const Plan& Attention::plan(Pass pass) const { return impl_->pass(pass).plan(); }
Algorithm Attention::algorithm() const { return impl_->decision.algorithm; }
std::string Attention::kernel_used() const { return std::string(impl_->choice.kernel->name); }
std::string Attention::fallback_reason() const { return impl_->choice.fallback_reason; }
CallStats Attention::stats(Pass pass) const { return impl_->pass(pass).stats(); }

}  // namespace annulus
