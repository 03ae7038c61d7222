#include "attention/plan/attend_accesses.h"

#include <algorithm>

namespace annulus::attn {
namespace {

constexpr std::size_t kMost = 9;

class Collector {
 public:
  Collector(const Attend& attend, const std::vector<Segment>& keys, const AttendShape& shape)
      : a_(attend), shape_(shape) {
    out_.reserve(kMost);
    // Segments cover their tokens without a gap, in any order.
    if (!keys.empty()) first_key_ = keys.front().token;
    for (const Segment& s : keys) {
      first_key_ = std::min(first_key_, s.token);
      keys_ += s.positions.count;
    }
    if (a_.heads > 0) {
      kv_head_ = a_.head / shape_.group;
      kv_heads_ = (a_.head + a_.heads - 1) / shape_.group + 1 - kv_head_;
    }
  }

  void rows(const SlotView& view, std::int32_t dims, AccessMode mode) {
    if (view.slot < 0 || shape_.rows == 0 || a_.heads == 0) return;
    out_.push_back(
        {{view.slot, 0, shape_.rows, 1, a_.head - view.head_origin, a_.heads, view.dim, dims},
         mode});
  }

  void keys(const SlotView& view, std::int32_t dims, AccessMode mode) {
    if (view.slot < 0 || keys_ == 0 || a_.heads == 0) return;
    out_.push_back(
        {{view.slot, first_key_, keys_, 1, kv_head_ - view.head_origin, kv_heads_, view.dim, dims},
         mode});
  }

  std::vector<Access> take() { return std::move(out_); }

 private:
  const Attend& a_;
  AttendShape shape_;
  std::int64_t first_key_ = 0;
  std::int64_t keys_ = 0;
  std::int32_t kv_head_ = 0;
  std::int32_t kv_heads_ = 0;
  std::vector<Access> out_;
};

}  // namespace

std::vector<Access> attend_accesses(const Attend& a, const std::vector<Segment>& keys,
                                    const AttendShape& shape) {
  Collector c(a, keys, shape);
  c.rows(a.q, shape.dim, AccessMode::read);
  c.keys(a.k, shape.dim, AccessMode::read);
  c.keys(a.v, shape.dim_v, AccessMode::read);
  if (a.pass == Pass::forward) {
    const AccessMode state = a.resume ? AccessMode::update : AccessMode::write;
    c.rows(a.lse, 1, state);
    const bool same = a.state.slot == a.out.slot;
    if (a.resume || !a.finish) c.rows(a.state, shape.dim_v, a.finish ? AccessMode::read : state);
    if (a.finish)
      c.rows(a.out, shape.dim_v, a.resume && same ? AccessMode::update : AccessMode::write);
  } else {
    c.rows(a.lse, 1, AccessMode::read);
    c.rows(a.delta, 1, AccessMode::read);
    c.rows(a.dout, shape.dim_v, AccessMode::read);
    c.rows(a.dq, shape.dim, a.dq_assign ? AccessMode::write : AccessMode::update);
    const AccessMode kv = a.dkv_assign ? AccessMode::write : AccessMode::update;
    c.keys(a.dk, shape.dim, kv);
    c.keys(a.dv, shape.dim_v, kv);
  }
  return c.take();
}

}  // namespace annulus::attn
