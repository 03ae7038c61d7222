// How rows of a layer on GPUs reach their experts' ranks and come back.
#include "moe/device_layer.h"

#include <algorithm>

namespace annulus::moe {
/// Rows of this rank's experts in a round: [round, round + 1) * capacity, from 0 on.
std::span<const ExpertRows> DeviceLayer::expert_rows(const DeviceStep& step, std::int64_t round) {
  const std::int64_t begin = round * capacity_, end = begin + capacity_;
  round_rows_.clear();
  for (const ExpertRows& all : step.expert_rows) {
    const std::int64_t low = std::clamp(all.first, begin, end);
    const std::int64_t high = std::clamp(all.first + all.rows, begin, end);
    round_rows_.push_back({.expert = all.expert, .first = low - begin, .rows = high - low});
  }
  return round_rows_;
}

cuda::ScatterParams DeviceLayer::scatter_of(const ConstTensorView& from, std::int64_t part,
                                            const DeviceStep& step, std::int64_t round) const {
  const std::int64_t element = size_of(config_.dtype);
  cuda::ScatterParams p;
  p.tokens = step.tokens;
  p.k = place_.k;
  p.low = round * capacity_;
  p.high = p.low + capacity_;
  p.bytes = config_.hidden * element;
  p.from = static_cast<const std::byte*>(from.data);
  p.from_stride = from.strides[0] * element;
  p.rank = step.rank;
  p.place = step.row;
  for (std::int64_t r = 0; r < ranks_; ++r) {
    p.to[r] = region(r) + part;
    p.weights_to[r] = reinterpret_cast<float*>(region(r) + region_.weights);
    p.first[r] = -p.low;
  }
  return p;
}

/// On their way, whichever that is: arrive() says when they are there.
void DeviceLayer::send(const ConstTensorView& from, std::int64_t part, bool weights,
                       const DeviceStep& step, std::int64_t round, void* stream) {
  if (in_messages()) return pack(from, weights, step, stream);
  if (step.sent_tokens) return send_tokens(from, weights, step, stream);
  send_copies(from, part, weights, step, round, stream);
}

void DeviceLayer::arrive(const char* phase, std::int64_t part, bool weights, const DeviceStep& step,
                         std::int64_t round, void* stream) {
  if (in_messages()) return exchange_rows(phase, part, weights, step, round, stream);
  meet(phase, stream);
  if (step.sent_tokens) expand(part, step);
}

/// x before dy, which will arrive with it. By copies: tokens once a rank have one place to wait in.
void DeviceLayer::send_again(const ConstTensorView& x, const DeviceStep& step, std::int64_t round,
                             void* stream) {
  if (!in_messages()) return send_copies(x, region_.rows, true, step, round, stream);
  pack(x, true, step, stream);
  exchange_rows("dispatch again", region_.rows, true, step, round, stream);
}

void DeviceLayer::send_copies(const ConstTensorView& from, std::int64_t part, bool weights,
                              const DeviceStep& step, std::int64_t round, void* stream) {
  cuda::ScatterParams p = scatter_of(from, part, step, round);
  p.weights = weights ? step.weights : nullptr;
  device_.scatter(p, stream == device_.context.stream ? 0 : kBlocksBeside, stream);
}

/// Each token once to each rank that has one of its experts, behind those of earlier ranks; what
/// stays here goes to its rows at once.
void DeviceLayer::send_tokens(const ConstTensorView& from, bool weights, const DeviceStep& step,
                              void* stream) {
  cuda::ScatterParams p = scatter_of(from, region_.tokens, step, 0);
  p.weights = weights ? step.weights : nullptr;
  p.once_a_rank = true;
  p.place = step.unique_of;
  p.high = max_tokens_;
  p.row = step.row;
  p.own = static_cast<std::int32_t>(me_);
  p.own_rows = own(weights ? region_.rows : region_.dy_rows);
  for (std::int64_t r = 0; r < ranks_; ++r) {
    p.first[r] = me_ * max_tokens_;
    p.source_of[r] = reinterpret_cast<std::int64_t*>(region(r) + region_.source_of);
  }
  device_.scatter(p, stream == device_.context.stream ? 0 : kBlocksBeside, stream);
}

void DeviceLayer::expand(std::int64_t part, const DeviceStep& step) {
  const ExpertRows& last = step.expert_rows.back();
  const std::int64_t bytes = config_.hidden * size_of(config_.dtype);
  device_.kernel->copy({.rows = last.first + last.rows,
                        .bytes = bytes,
                        .from_at = reinterpret_cast<const std::int64_t*>(own(region_.source_of)),
                        .from = own(region_.tokens),
                        .from_stride = bytes,
                        .to_at = nullptr,
                        .to = own(part),
                        .to_stride = bytes},
                       device_.context);
}

void* DeviceLayer::begin_travel(bool beside) {
  void* stream = device_.context.stream;
  if (!beside || peers_ == nullptr || config_.shared_ffn == 0) return stream;
  device_.follow(device_.travel, stream);
  return device_.travel;
}

/// What every rank gave `stream`, and what that followed, is over when this returns. Nobody waits
/// for another rank on the device, so that a rank that is gone leaves no kernel behind that waits.
void DeviceLayer::meet(const char* phase, void* stream) {
  if (peers_ == nullptr) return;
  device_.wait(stream);
  peers_->meet(phase);
}

/// Values of pairs (`dweights`, unless null) come home, and with several rounds rows do. With one
/// round combine loads them where they are.
void DeviceLayer::finish_round(const DeviceStep& step, std::int64_t round, float* dweights) {
  const std::int64_t low = round * capacity_, high = low + capacity_;
  if (dweights != nullptr) {
    cuda::PullParams p{.pairs = step.tokens * config_.k,
                       .rank = step.rank,
                       .place = step.row,
                       .low = low,
                       .high = high,
                       .from = {},
                       .to = dweights};
    for (std::int64_t r = 0; r < ranks_; ++r) {
      p.from[r] = reinterpret_cast<const float*>(region(r) + region_.dweights);
    }
    device_.pull(p, device_.context.stream);
  }
  if (step.rounds == 1) return;
  cuda::FetchParams p{.tokens = step.tokens,
                      .k = place_.k,
                      .low = low,
                      .high = high,
                      .bytes = config_.hidden * size_of(config_.dtype),
                      .rank = step.rank,
                      .place = step.row,
                      .from = {},
                      .to = back_,
                      .at = back_at_};
  for (std::int64_t r = 0; r < ranks_; ++r) p.from[r] = region(r) + region_.y_rows;
  device_.fetch(p, device_.context.stream);
}

void DeviceLayer::combine(const TensorView& out, bool more, const DeviceStep& step) {
  const bool here = step.rounds > 1 || in_messages();
  const std::int64_t* at = in_messages() ? step.sent_at : back_at_;
  cuda::CombineParams p{.sum = {.dtype = config_.dtype,
                                .tokens = step.tokens,
                                .k = config_.k,
                                .width = config_.hidden,
                                .at = here ? at : step.row,
                                .rows = nullptr,
                                .more = more ? more_ : nullptr,
                                .out = out.data,
                                .out_stride = out.strides[0]},
                        .rank = here ? nullptr : step.rank};
  for (std::int64_t r = 0; r < ranks_; ++r) p.rows[r] = here ? back_ : region(r) + region_.y_rows;
  device_.combine(p, 0, device_.context.stream);
}

}  // namespace annulus::moe
