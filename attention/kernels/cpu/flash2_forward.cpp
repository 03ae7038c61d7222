// FlashAttention-2 forward (Dao 2023) on a CPU: a block of query rows stays, key blocks stream past
// it, O is rescaled by the running maximum and divided by the sum once, at the end.
// For each row block: S^T = K Q^T, online softmax down the columns, O^T += V^T P^T; all three tiles
// lie with rows innermost (tile_ops.h). Workspace per thread: Q, Q^T, O^T, K, V and S^T blocks.
// Limits: head dims up to 512; tiles that begin at different rows share none.
#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/tile_ops.h"
#include "runtime/base/dtype.h"
#include "runtime/base/parallel_for.h"

#include <atomic>
#include <cmath>
#include <limits>

namespace annulus::attn::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct ForwardBuffers {
  explicit ForwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : rows(scratch.floats(kRows * padded(std::max(g.head_dim, g.head_dim_v)))),
        q(scratch.floats(g.head_dim * kRows)),
        o(scratch.floats(g.head_dim_v * kRows)),
        k(scratch.floats(kKeys * g.head_dim)),
        v(scratch.floats(kKeys * g.head_dim_v)),
        p(scratch.floats(kKeys * kRows)),
        max(scratch.floats(kRows)),
        sum(scratch.floats(kRows)) {}

  float *rows, *q, *o, *k, *v, *p, *max, *sum;
};

/// One (batch, query head) of the launch, on one thread.
class ForwardHead {
 public:
  ForwardHead(const ForwardParams& params, const TileOps& ops, std::int64_t batch,
              std::int64_t head, const ForwardBuffers& buffers)
      : params_(params), g_(params.geometry), ops_(ops), batch_(batch), head_(head), w_(buffers) {}

  /// Returns the FLOPs of its tile products. Calls poll() before each of them.
  template <typename Poll>
  std::int64_t run(const RowBlock& block, Poll&& poll) {
    load_rows(ops_, {params_.q, batch_, head_, g_.head_dim}, block, w_.rows);
    transpose_rows(block, g_.head_dim, w_.rows, w_.q);
    begin(block);
    std::int64_t flops = 0;
    for_each_key_block(g_, block, [&](const KeyBlock& part) {
      poll();
      flops += attend(part);
    });
    end(block);
    return flops;
  }

 private:
  std::int64_t lse_offset(std::int64_t token) const {
    return offset_of(params_.lse, batch_, token, head_);
  }

  void begin(const RowBlock& block) {
    std::fill_n(w_.max, kRows, -kInfinity);
    std::fill_n(w_.sum, kRows, 0.0F);
    std::fill_n(w_.o, g_.head_dim_v * kRows, 0.0F);
    if (!params_.resume) return;
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
      const float lse = static_cast<const float*>(params_.lse.data)[lse_offset(token)];
      if (lse == -kInfinity) continue;
      w_.max[i] = lse;
      w_.sum[i] = 1.0F;
      const float* state = static_cast<const float*>(params_.state.data) +
                           offset_of(params_.state, batch_, token, head_);
      for (std::int64_t d = 0; d < g_.head_dim_v; ++d) w_.o[d * kRows + i] = state[d];
    }
  }

  std::int64_t attend(const KeyBlock& part) {
    const std::int64_t kv_head = kv_head_of(g_, head_);
    load_keys(ops_, params_.k, batch_, kv_head, part, g_.head_dim, w_.k);
    load_keys(ops_, params_.v, batch_, kv_head, part, g_.head_dim_v, w_.v);
    const std::int64_t rows = padded(part.rows);
    ops_.multiply({.m = part.keys,
                   .n = rows,
                   .k = g_.head_dim,
                   .a = w_.k,
                   .a_m = g_.head_dim,
                   .a_k = 1,
                   .b = w_.q,
                   .b_k = kRows,
                   .c = w_.p,
                   .c_m = kRows});
    const ScoreRule rule{static_cast<float>(g_.softmax_scale), static_cast<float>(g_.softcap),
                         part.masked ? &part.ranges : nullptr};
    ops_.softmax({rule, part.keys, rows, g_.head_dim_v, w_.p, w_.max, w_.sum, w_.o});
    ops_.multiply({.m = g_.head_dim_v,
                   .n = rows,
                   .k = part.keys,
                   .a = w_.v,
                   .a_m = 1,
                   .a_k = g_.head_dim_v,
                   .b = w_.p,
                   .b_k = kRows,
                   .c = w_.o,
                   .c_m = kRows,
                   .add = true});
    return 2 * part.rows * part.keys * (g_.head_dim + g_.head_dim_v);
  }

  void end(const RowBlock& block) {
    const Output& target = params_.finish ? params_.out : params_.state;
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
      const float sum = w_.sum[i];
      const bool unseen = sum == 0.0F;
      const std::int64_t at = offset_of(target, batch_, token, head_);
      for (std::int64_t d = 0; d < g_.head_dim_v; ++d) {
        store_f32(target.data, target.dtype, at + d, unseen ? 0.0F : w_.o[d * kRows + i] / sum);
      }
      static_cast<float*>(params_.lse.data)[lse_offset(token)] =
          unseen ? -kInfinity : w_.max[i] + std::log(sum);
    }
  }

  const ForwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  std::int64_t batch_, head_;
  const ForwardBuffers& w_;
};

}  // namespace

std::int64_t flash2_forward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const ForwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash2_forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  check_row_groups(g);
  const TileOps ops = tile_ops();
  const auto share = static_cast<std::size_t>(flash2_forward_bytes(g));
  // Rows are independent, so few heads are split into every parts-th row block.
  const std::int64_t heads = g.batch * g.heads;
  const std::int64_t parts = heads < 4 * context.threads ? context.threads : 1;
  std::atomic<std::int64_t> flops{0};
  parallel_for(context.threads, heads * parts, context.poll, [&](int thread, std::int64_t unit) {
    Scratch scratch(context.workspace.subspan(static_cast<std::size_t>(thread) * share, share));
    const ForwardBuffers buffers(g, scratch);
    const std::int64_t index = unit / parts;
    ForwardHead head(params, ops, index / g.heads, index % g.heads, buffers);
    const auto poll = [&] {
      if (thread == 0 && context.poll) context.poll();
    };
    std::int64_t block_index = 0;
    for_each_row_block(g, [&](const RowBlock& block) {
      if (block_index++ % parts == unit % parts) flops += head.run(block, poll);
    });
  });
  if (context.flops != nullptr) *context.flops += flops;
}

}  // namespace annulus::attn::cpu
