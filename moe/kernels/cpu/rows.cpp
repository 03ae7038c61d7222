#include "moe/kernels/cpu/block_ops.h"
#include "moe/kernels/cpu/kernel.h"
#include "runtime/base/parallel_for.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

namespace annulus::moe::cpu {
namespace {

/// Rows that one turn of a thread takes: small turns balance, but each costs an atomic.
constexpr std::int64_t kRowsAtOnce = 8;

template <typename Work>
void each_row(std::int64_t rows, int threads, const LaunchContext& context, const Work& work) {
  const std::int64_t chunks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  parallel_for(threads, chunks, context.poll, [&](int thread, std::int64_t chunk) {
    const std::int64_t end = std::min(rows, (chunk + 1) * kRowsAtOnce);
    for (std::int64_t row = chunk * kRowsAtOnce; row < end; ++row) work(thread, row);
    if (thread == 0 && context.poll) context.poll();
  });
}

void sum_row(const SumParams& p, const BlockOps& ops, std::int64_t token, float* sum, float* term) {
  std::fill_n(sum, p.width, 0.0F);
  const std::int64_t element = size_of(p.dtype);
  for (std::int64_t slot = 0; slot < p.k; ++slot) {
    const std::int64_t row = p.at[token * p.k + slot];
    if (row < 0) continue;
    ops.widen(static_cast<const std::byte*>(p.rows) + row * p.width * element, p.dtype, p.width,
              term);
    for (std::int64_t i = 0; i < p.width; ++i) sum[i] += term[i];
  }
  if (p.more != nullptr) {
    const float* more = p.more + token * p.width;
    for (std::int64_t i = 0; i < p.width; ++i) sum[i] += more[i];
  }
  ops.narrow(sum, p.width, p.dtype,
             static_cast<std::byte*>(p.out) + token * p.out_stride * element);
}

}  // namespace

void sum(const SumParams& p, const LaunchContext& context) {
  const std::int64_t share = 2 * padded(p.width);
  const auto have = static_cast<std::int64_t>(context.workspace.size() / sizeof(float));
  const int threads = static_cast<int>(std::min<std::int64_t>(context.threads, have / share));
  if (threads < 1) {
    throw InvalidArgument(fmt::format("sum of rows: {} bytes of workspace, a row of {} needs {}",
                                      context.workspace.size(), p.width, share * 4));
  }
  const BlockOps ops = block_ops();
  auto* memory = reinterpret_cast<float*>(context.workspace.data());
  each_row(p.tokens, threads, context, [&](int thread, std::int64_t token) {
    float* own = memory + thread * share;
    sum_row(p, ops, token, own, own + padded(p.width));
  });
}

void copy(const CopyParams& p, const LaunchContext& context) {
  each_row(p.rows, context.threads, context, [&](int, std::int64_t i) {
    const std::int64_t from = p.from_at != nullptr ? p.from_at[i] : i;
    const std::int64_t to = p.to_at != nullptr ? p.to_at[i] : i;
    if (from < 0 || to < 0) return;
    std::memcpy(static_cast<std::byte*>(p.to) + to * p.to_stride,
                static_cast<const std::byte*>(p.from) + from * p.from_stride,
                static_cast<std::size_t>(p.bytes));
  });
}

}  // namespace annulus::moe::cpu
