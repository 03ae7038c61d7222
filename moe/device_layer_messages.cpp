// How rows of a layer on GPUs travel where ranks do not address each other's memory: in messages,
// as on the CPU. A rank's pairs by (expert, token) are its sent order, which is its placement were
// it alone; those of an expert and a round are neighbours at both ends, so that they land in place.
#include "moe/device_layer.h"

namespace annulus::moe {
namespace {

constexpr std::int64_t kScalar = 4;

}  // namespace

/// Places in sent order, and what rounds move between two ranks.
void DeviceLayer::place_messages(DeviceStep& step) {
  sent_.tokens = place_.tokens;
  sent_.indices = step.indices;
  sent_.row = step.sent_at;
  device_.count_pairs(sent_, device_.context.stream);
  device_.place_pairs(sent_, device_.context.stream);
  ExchangePlan& plan = step.plan;
  plan.shape = {
      .group = peers_->group(), .experts = config_.experts, .k = config_.k, .capacity = capacity_};
  const auto pairs = static_cast<std::size_t>(ranks_ * config_.experts);
  plan.counts.resize(pairs);
  plan.start.resize(pairs);
  const std::int64_t local = config_.experts / ranks_;
  std::int64_t next = 0;
  for (std::int64_t e = 0; e < config_.experts; ++e) {
    if (e % local == 0) next = 0;
    for (std::int64_t source = 0; source < ranks_; ++source) {
      const auto at = static_cast<std::size_t>(source * config_.experts + e);
      plan.counts[at] = step.counts[static_cast<std::size_t>(source * counts_width() + e)];
      plan.start[at] = next;
      next += plan.counts[at];
    }
  }
}

/// Adds what `sent` [pairs] gives to every rank in a round and `rows` [capacity] takes, or the
/// other way round. `size`: bytes of one.
void DeviceLayer::add_messages(const DeviceStep& step, std::int64_t round, std::byte* sent,
                               std::byte* rows, std::int64_t size, bool out) {
  const auto add = [&](bool sends, std::int64_t peer, std::byte* data, std::int64_t count) {
    messages_.push_back({sends, static_cast<int>(peer), data, count * size});
  };
  std::int64_t first = 0;  // of what goes to a rank, in sent order
  for (std::int64_t r = 0; r < ranks_; ++r) {
    const auto me = static_cast<int>(me_), peer = static_cast<int>(r);
    each_segment(step.plan, me, peer, round,
                 [&](const Segment& s) { add(out, r, sent + (first + s.sent) * size, s.pairs); });
    each_segment(step.plan, peer, me, round,
                 [&](const Segment& s) { add(!out, r, rows + s.row * size, s.pairs); });
    const std::int64_t local = config_.experts / ranks_;
    for (std::int64_t e = r * local; e < (r + 1) * local; ++e) first += step.plan.count(me, e);
  }
}

/// In sent order, for exchange_rows.
void DeviceLayer::pack(const ConstTensorView& from, bool weights, const DeviceStep& step,
                       void* stream) {
  cuda::ScatterParams p = scatter_of(from, 0, step, 0);
  p.rank = nullptr;
  p.place = step.sent_at;
  p.low = p.first[0] = 0;
  p.high = max_tokens_ * config_.k;
  p.to[0] = packed_;
  p.weights = weights ? step.weights : nullptr;
  p.weights_to[0] = packed_values_;
  device_.scatter(p, stream == device_.context.stream ? 0 : kBlocksBeside, stream);
}

void DeviceLayer::exchange_rows(const char* phase, std::int64_t part, bool weights,
                                const DeviceStep& step, std::int64_t round, void* stream) {
  messages_.clear();
  add_messages(step, round, packed_, own(part), row_bytes(), true);
  if (weights) {
    add_messages(step, round, reinterpret_cast<std::byte*>(packed_values_), own(region_.weights),
                 kScalar, true);
  }
  peers_->carrier()->exchange(phase, messages_, stream);
}

void DeviceLayer::return_rows(const char* phase, bool values, const DeviceStep& step,
                              std::int64_t round) {
  messages_.clear();
  add_messages(step, round, back_, own(region_.y_rows), row_bytes(), false);
  if (values) {
    add_messages(step, round, reinterpret_cast<std::byte*>(back_values_), own(region_.dweights),
                 kScalar, false);
  }
  peers_->carrier()->exchange(phase, messages_, device_.context.stream);
}

/// Values of all rounds, from sent order.
void DeviceLayer::take_values(const DeviceStep& step, float* dweights) {
  cuda::PullParams p{.pairs = step.tokens * config_.k,
                     .rank = nullptr,
                     .place = step.sent_at,
                     .from = {},
                     .to = dweights};
  p.from[0] = back_values_;
  device_.pull(p, device_.context.stream);
}

}  // namespace annulus::moe
