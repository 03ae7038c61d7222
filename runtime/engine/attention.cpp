#include <annulus/attention.h>

#include "runtime/base/host_range.h"
#include "runtime/engine/bind.h"
#include "runtime/engine/shapes.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <exception>
#include <memory>
#include <optional>
#include <span>
#include <string>
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
  Impl(Session& s, const Problem& p, const AttentionOptions& o)
      : session(s), options(o), bound(bind_in_turn(p)) {
    shapes.emplace(bound.problem, bound.forward->plan().sharding(), session.mesh().rank());
    summary = fmt::format("algorithm {}, world {}, kernel {}, plan {:08x}",
                          name_of(bound.decision.algorithm), session.mesh().world(),
                          bound.choice.kernel->name, bound.hash());
    const Logger& log = session.impl().log();
    log.debug("attention: {} ({})", summary, bound.decision.reason);
    if (!bound.choice.fallback_reason.empty() && session.mesh().rank() == 0) {
      log.warn("kernel {} is used instead of {}: {}", bound.choice.kernel->name, options.kernel,
               bound.choice.fallback_reason);
    }
  }

  /// To bind may load code, for which the driver waits until the GPU is idle, and holds up all
  /// threads of the process. So ranks that share a GPU bind together: what they enqueued before is
  /// whole then, and nobody calls before all are done. Elsewhere nobody waits.
  engine::Binding bind_in_turn(const Problem& p) const {
    Session::Impl& on = session.impl();
    if (!on.device || !on.device->share_gpus()) return engine::bind(on, p, options);
    on.communicator().barrier("attention: ranks that share a GPU");
    engine::Binding made;
    std::exception_ptr error;
    try {
      made = engine::bind(on, p, options);
    } catch (...) {
      error = std::current_exception();
    }
    on.communicator().barrier("attention: ranks that share a GPU are bound");
    if (error) std::rethrow_exception(error);
    return made;
  }

  /// Before the first call enqueues anything: that all ranks make the same one. Collective.
  void agree(const engine::BoundPass& first) {
    if (agreed || session.mesh().world() == 1) return;
    Session::Impl& on = session.impl();
    engine::require_alive(on);
    const std::string call = fmt::format("{}, first {}", summary, name_of(first.rank().pass));
    const auto ask = [&] { engine::agree_on_call(on, "attention", call, first.rank()); };
    if (on.device) {
      on.device->beside_captures(ask);
    } else {
      ask();
    }
    agreed = true;
  }

  engine::BoundPass& pass(Pass which) const {
    if (which == Pass::forward) return *bound.forward;
    if (!bound.backward) {
      throw InvalidArgument("attention: the session was made with backward = false");
    }
    return *bound.backward;
  }

  void set(engine::BoundPass& of, Role role, const TensorView& tensor) const {
    shapes->require(role, tensor);
    tell_of_rows(of, role, tensor);
    of.set(role, tensor);
  }

  /// Which kernel a launch takes then is no longer what kernel_used says.
  void tell_of_rows(const engine::BoundPass& of, Role role, const TensorView& tensor) const {
    Session::Impl& on = session.impl();
    const std::int64_t bytes = bound.choice.kernel->row_alignment;
    if (on.told_of_rows || engine::rows_suit(of.rank(), role, tensor, bytes)) return;
    on.told_of_rows = true;
    on.log().warn(
        "rows of {} are not aligned to {} bytes, which {} wants: launches that meet them go to a "
        "slower kernel (said once a session)",
        engine::name_of(role), bytes, bound.choice.kernel->name);
  }

  void run(engine::BoundPass& of, Stream stream) {
    const HostRange range(&of == bound.forward.get() ? forward_range : backward_range);
    agree(of);
    of.run(options.blocking_transfers ? engine::RunMode::blocking : engine::RunMode::overlapped,
           stream);
  }

  CallStats replay(Pass which, engine::RunMode mode) {
    engine::BoundPass& of = pass(which);
    agree(of);
    return of.replay(mode);
  }

  Session& session;
  AttentionOptions options;
  engine::Binding bound;
  std::string summary;  ///< what ranks agree on
  bool agreed = false;
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
  return impl_->replay(pass, engine::RunMode::transfers_alone);
}

CallStats Attention::compute_alone(Pass pass) {
  return impl_->replay(pass, engine::RunMode::compute_alone);
}

void Attention::record(bool on) {
  impl_->bound.forward->record(on);
  if (impl_->bound.backward) impl_->bound.backward->record(on);
}

CallTrace Attention::recorded(Pass pass) { return impl_->pass(pass).recorded(); }

void Attention::synchronize(Stream stream) const { impl_->pass(Pass::forward).synchronize(stream); }

CostReport Attention::cost() const {
  const Problem& p = impl_->bound.problem;
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
  const std::array<std::array<std::int64_t, 2>, 2> mine{flops(impl_->bound.forward),
                                                        flops(impl_->bound.backward)};
  std::vector<std::array<std::array<std::int64_t, 2>, 2>> all(
      static_cast<std::size_t>(mesh.world()));
  impl_->session.impl().communicator().all_gather(
      std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "cost report");
  for (const auto& rank : all) {
    report.planned.flops_rank_layer.push_back(rank[0][0]);
    report.executed.flops_rank_layer.push_back(rank[0][1]);
    if (!impl_->bound.backward) continue;
    report.planned.backward_flops_rank_layer.push_back(rank[1][0]);
    report.executed.backward_flops_rank_layer.push_back(rank[1][1]);
  }
  return report;
}

const Sharding& Attention::layout() const { return impl_->bound.forward->plan().sharding(); }
const Plan& Attention::plan(Pass pass) const { return impl_->pass(pass).plan(); }
Algorithm Attention::algorithm() const { return impl_->bound.decision.algorithm; }
std::string Attention::kernel_used() const { return std::string(impl_->bound.choice.kernel->name); }
std::string Attention::fallback_reason() const { return impl_->bound.choice.fallback_reason; }
CallStats Attention::stats(Pass pass) const { return impl_->pass(pass).stats(); }

}  // namespace annulus
