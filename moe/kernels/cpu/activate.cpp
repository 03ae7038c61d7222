#include "moe/kernels/cpu/block_ops.h"
#include "moe/kernels/cpu/kernel.h"
#include "runtime/base/parallel_for.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>

namespace annulus::moe::cpu {
namespace {

constexpr std::int64_t kRowsAtOnce = 8;

/// One row at a time, widened; a share of the workspace.
class Rows {
 public:
  Rows(const ActivateParams& params, const BlockOps& ops, float* memory) : p_(params), ops_(ops) {
    const std::int64_t n = padded(p_.ffn);
    std::fill_n(memory, floats(p_), 0.0F);  // the padding; arithmetic keeps it finite
    row_ = {.activation = p_.activation,
            .ffn = p_.ffn,
            .weight = 1.0F,
            .gated = memory,
            .up = memory + n,
            .activated = memory + 2 * n,
            .dactivated = memory + 3 * n,
            .dgated = memory + 4 * n,
            .dup = memory + 5 * n};
  }

  static std::int64_t floats(const ActivateParams& p) { return 6 * padded(p.ffn); }

  void forward(std::int64_t row) {
    take(row);
    ops_.gate(row_);
    give(row_.activated, p_.activated, row * p_.ffn);
  }

  void backward(std::int64_t row) {
    take(row);
    widen(p_.dactivated, row * p_.ffn, row_.dactivated);
    const float dot = ops_.gate_backward(row_);
    if (p_.dweights != nullptr) p_.dweights[row] = dot;
    give(row_.activated, p_.activated, row * p_.ffn);
    const std::int64_t at = row * hidden_width(p_.activation, p_.ffn);
    if (p_.activation == Activation::swiglu) give(row_.dgated, p_.dhidden, at);
    give(row_.dup, p_.dhidden, at + up_at());
  }

 private:
  std::int64_t up_at() const { return hidden_width(p_.activation, p_.ffn) - p_.ffn; }

  void take(std::int64_t row) {
    const std::int64_t at = row * hidden_width(p_.activation, p_.ffn);
    if (p_.activation == Activation::swiglu) widen(p_.hidden, at, row_.gated);
    widen(p_.hidden, at + up_at(), row_.up);
    row_.weight = p_.weights != nullptr ? p_.weights[row] : 1.0F;
  }

  void widen(const void* from, std::int64_t at, float* to) const {
    ops_.widen(static_cast<const std::byte*>(from) + at * size_of(p_.dtype), p_.dtype, p_.ffn, to);
  }
  void give(const float* from, void* to, std::int64_t at) const {
    ops_.narrow(from, p_.ffn, p_.dtype, static_cast<std::byte*>(to) + at * size_of(p_.dtype));
  }

  const ActivateParams& p_;
  const BlockOps& ops_;
  GateRow row_;
};

template <typename Work>
void each_row(const ActivateParams& params, const LaunchContext& context, const Work& work) {
  const std::int64_t share = Rows::floats(params);
  const std::int64_t have = static_cast<std::int64_t>(context.workspace.size() / sizeof(float));
  // Wide rows leave room for fewer threads than were asked for.
  const int threads = static_cast<int>(std::min<std::int64_t>(context.threads, have / share));
  if (threads < 1) {
    throw InvalidArgument(fmt::format("activation: {} bytes of workspace, a row of {} needs {}",
                                      context.workspace.size(), params.ffn, share * 4));
  }
  const BlockOps ops = block_ops();
  auto* memory = reinterpret_cast<float*>(context.workspace.data());
  const std::int64_t chunks = (params.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_for(threads, chunks, context.poll, [&](int thread, std::int64_t chunk) {
    Rows rows(params, ops, memory + thread * share);
    const std::int64_t end = std::min(params.rows, (chunk + 1) * kRowsAtOnce);
    for (std::int64_t row = chunk * kRowsAtOnce; row < end; ++row) work(rows, row);
    if (thread == 0 && context.poll) context.poll();
  });
}

}  // namespace

void activate(const ActivateParams& params, const LaunchContext& context) {
  each_row(params, context, [](Rows& rows, std::int64_t row) { rows.forward(row); });
}

void activate_backward(const ActivateParams& params, const LaunchContext& context) {
  each_row(params, context, [](Rows& rows, std::int64_t row) { rows.backward(row); });
}

}  // namespace annulus::moe::cpu
