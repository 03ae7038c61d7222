// One launch over keys that are all here: a single group.

#include "attention/plan/stages.h"

namespace annulus::attn {

SlotView view(std::int32_t slot, std::int32_t head_origin, std::int32_t dim) {
  return {slot, head_origin, dim};
}

namespace {

/// All keys are here, in whatever order: their pairs are those of one segment.
std::int64_t all_pairs(const RankBuilder& b) { return b.rows().pairs({0, *b.problem().seq_kv, 1}); }

}  // namespace

void local_forward(RankBuilder& b, const GroupTensors& t) {
  Attend a;
  a.head = b.heads().first;
  a.heads = b.heads().count;
  a.q = t.q;
  a.k = t.k;
  a.v = t.v;
  a.out = t.out;
  a.lse = t.lse;
  a.finish = true;
  b.attend(a, segments_of(b.group().keys), 0, all_pairs(b));
}

GroupGradients dkv_target(RankBuilder& b, DType dtype) {
  const HeadRange kv = b.heads_kv();
  GroupGradients g;
  if (b.plan().request.mesh.ulysses == 1 && b.problem().dtype == dtype) {
    g.dk = view(b.caller(Role::dk), 0);
    g.dv = view(b.caller(Role::dv), 0);
  } else {
    const std::int32_t dkv =
        b.slot("dkv", DType::f32, b.group().seq_kv, kv.count, b.dim() + b.dim_v());
    g.dk = view(dkv, kv.first);
    g.dv = view(dkv, kv.first, b.dim());
  }
  return g;
}

GroupGradients local_backward(RankBuilder& b, const GroupTensors& t) {
  const SlotView dq = dq_target(b);
  GroupGradients g = dkv_target(b, b.own_dkv());
  g.dq = dq;
  Attend a;
  a.head = b.heads().first;
  a.heads = b.heads().count;
  a.q = t.q;
  a.k = t.k;
  a.v = t.v;
  a.dout = t.dout;
  a.lse = t.lse;
  a.delta = t.delta;
  a.dq = g.dq;
  a.dk = g.dk;
  a.dv = g.dv;
  a.dq_assign = true;
  a.dkv_assign = true;
  b.attend(a, segments_of(b.group().keys), 0, all_pairs(b));
  return g;
}

}  // namespace annulus::attn
