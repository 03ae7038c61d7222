// FlashAttention-2 backward (Dao 2023, algorithm 2) with the row block outermost, as in forward:
// for each row block and key block P is recomputed from lse, dS = P * (dP - delta), then
// dV += P^T dO, dK += dS^T Q, dQ += dS K. dQ stays in the workspace for a row block; the dK and dV
// of a key block are summed there and added to the output once a block.
// One unit of work is a (batch, key/value head) with all query heads that read it, in order: dk and
// dv have one writer and one order of summation, whatever the thread count.
// Workspace per thread: Q, Q^T, dO, dO^T, dQ^T, K, V, P, dS, dK, dV blocks.
#include "attention/kernels/cpu/flash2.h"

#include "attention/kernels/cpu/blocks.h"
#include "attention/kernels/cpu/rows.h"
#include "attention/kernels/cpu/scratch.h"
#include "attention/kernels/cpu/tile_ops.h"
#include "runtime/base/parallel_for.h"

#include <atomic>
#include <limits>

namespace annulus::attn::cpu {

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct BackwardBuffers {
  BackwardBuffers(const AttendGeometry& g, Scratch& scratch)
      : q_rows(scratch.floats(kRows * padded(g.head_dim))),
        q(scratch.floats(kRows * g.head_dim)),
        dout_rows(scratch.floats(kRows * padded(g.head_dim_v))),
        dout(scratch.floats(kRows * g.head_dim_v)),
        dq(scratch.floats(kRows * g.head_dim)),
        k(scratch.floats(kKeys * g.head_dim)),
        v(scratch.floats(kKeys * g.head_dim_v)),
        p(scratch.floats(kKeys * kRows)),
        ds(scratch.floats(kKeys * kRows)),
        dkv(scratch.floats(kKeys * padded(std::max(g.head_dim, g.head_dim_v)))),
        lse(scratch.floats(kRows)),
        delta(scratch.floats(kRows)) {}

  float *q_rows, *q, *dout_rows, *dout, *dq, *k, *v, *p, *ds, *dkv, *lse, *delta;
};

float* element(const Output& operand, std::int64_t batch, std::int64_t token, std::int64_t head) {
  return static_cast<float*>(operand.data) + offset_of(operand, batch, token, head);
}

float value_of(const Input& operand, std::int64_t batch, std::int64_t token, std::int64_t head) {
  return static_cast<const float*>(operand.data)[offset_of(operand, batch, token, head)];
}

/// One (batch, query head) of the launch.
class BackwardHead {
 public:
  BackwardHead(const BackwardParams& params, const TileOps& ops, std::int64_t batch,
               std::int64_t head, const BackwardBuffers& buffers)
      : params_(params),
        g_(params.geometry),
        ops_(ops),
        batch_(batch),
        head_(head),
        kv_head_(kv_head_of(params.geometry, head)),
        w_(buffers) {}

  /// Returns the FLOPs of its tile products. Calls poll() before each key block.
  template <typename Poll>
  std::int64_t run(const RowBlock& block, Poll&& poll) {
    begin(block);
    std::int64_t flops = 0;
    for_each_key_block(g_, block, [&](const KeyBlock& part) {
      poll();
      recompute(part);
      differentiate(part);
      flops += 2 * part.rows * part.keys * (3 * g_.head_dim + 2 * g_.head_dim_v);
    });
    end(block);
    return flops;
  }

 private:
  void begin(const RowBlock& block) {
    load_rows(ops_, {params_.q, batch_, head_, g_.head_dim}, block, w_.q_rows);
    transpose_rows(block, g_.head_dim, w_.q_rows, w_.q);
    load_rows(ops_, {params_.dout, batch_, head_, g_.head_dim_v}, block, w_.dout_rows);
    transpose_rows(block, g_.head_dim_v, w_.dout_rows, w_.dout);
    std::fill_n(w_.dq, kRows * g_.head_dim, 0.0F);
    std::fill_n(w_.lse, kRows, kInfinity);
    std::fill_n(w_.delta, kRows, 0.0F);
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
      const float lse = value_of(params_.lse, batch_, token, head_);
      if (lse == -kInfinity) continue;  // saw no key: +inf makes P = exp(s - lse) zero
      w_.lse[i] = lse;
      w_.delta[i] = value_of(params_.delta, batch_, token, head_);
    }
  }

  /// P and dS of the block, [key][row].
  void recompute(const KeyBlock& part) {
    load_keys(ops_, params_.k, batch_, kv_head_, part, g_.head_dim, w_.k);
    load_keys(ops_, params_.v, batch_, kv_head_, part, g_.head_dim_v, w_.v);
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
    ops_.multiply({.m = part.keys,
                   .n = rows,
                   .k = g_.head_dim_v,
                   .a = w_.v,
                   .a_m = g_.head_dim_v,
                   .a_k = 1,
                   .b = w_.dout,
                   .b_k = kRows,
                   .c = w_.ds,
                   .c_m = kRows});
    const ScoreRule rule{static_cast<float>(g_.softmax_scale), static_cast<float>(g_.softcap),
                         part.masked ? &part.ranges : nullptr};
    ops_.gradient({rule, part.keys, rows, w_.p, w_.ds, w_.lse, w_.delta});
  }

  void differentiate(const KeyBlock& part) {
    ops_.multiply({.m = g_.head_dim,
                   .n = padded(part.rows),
                   .k = part.keys,
                   .a = w_.k,
                   .a_m = 1,
                   .a_k = g_.head_dim,
                   .b = w_.ds,
                   .b_k = kRows,
                   .c = w_.dq,
                   .c_m = kRows,
                   .add = true});
    add_keys(part, w_.p, w_.dout_rows, g_.head_dim_v, params_.dv);
    add_keys(part, w_.ds, w_.q_rows, g_.head_dim, params_.dk);
  }

  /// target[key] += sum over rows of weights[key][row] * rows[row].
  void add_keys(const KeyBlock& part, const float* weights, const float* rows, std::int64_t dim,
                const Output& target) {
    const std::int64_t stride = padded(dim);
    ops_.multiply({.m = part.keys,
                   .n = stride,
                   .k = part.rows,
                   .a = weights,
                   .a_m = kRows,
                   .a_k = 1,
                   .b = rows,
                   .b_k = stride,
                   .c = w_.dkv,
                   .c_m = stride});
    for (std::int64_t j = 0; j < part.keys; ++j) {
      const float* from = w_.dkv + j * stride;
      float* to = element(target, batch_, part.token + j, kv_head_);
      for (std::int64_t d = 0; d < dim; ++d) to[d] += from[d];
    }
  }

  void end(const RowBlock& block) {
    for (std::int64_t i = 0; i < block.rows; ++i) {
      const std::int64_t token = block.tokens[static_cast<std::size_t>(i)];
      float* to = element(params_.dq, batch_, token, head_);
      for (std::int64_t d = 0; d < g_.head_dim; ++d) {
        const float value = w_.dq[d * kRows + i];
        to[d] = params_.dq_assign ? value : to[d] + value;
      }
    }
  }

  const BackwardParams& params_;
  const AttendGeometry& g_;
  const TileOps& ops_;
  std::int64_t batch_, head_, kv_head_;
  const BackwardBuffers& w_;
};

/// Assigned gradients start as zero, also those of keys that no tile visits.
void clear_keys(const BackwardParams& params, std::int64_t batch, std::int64_t kv_head) {
  for (const KeySegment& segment : params.geometry.keys) {
    for (std::int64_t j = 0; j < segment.count; ++j) {
      const std::int64_t token = segment.token + j;
      std::fill_n(element(params.dk, batch, token, kv_head), params.geometry.head_dim, 0.0F);
      std::fill_n(element(params.dv, batch, token, kv_head), params.geometry.head_dim_v, 0.0F);
    }
  }
}

}  // namespace

std::int64_t flash2_backward_bytes(const AttendGeometry& geometry) {
  Scratch scratch;
  const BackwardBuffers count(geometry, scratch);
  return scratch.bytes();
}

void flash2_backward(const BackwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  if (g.heads == 0) return;
  check_row_groups(g);
  const TileOps ops = tile_ops();
  const auto share = static_cast<std::size_t>(flash2_backward_bytes(g));
  const std::int64_t first_kv = kv_head_of(g, 0);
  const std::int64_t heads_kv = kv_head_of(g, g.heads - 1) - first_kv + 1;
  std::atomic<std::int64_t> flops{0};
  const auto run_unit = [&](int thread, std::int64_t unit) {
    Scratch scratch(context.workspace.subspan(static_cast<std::size_t>(thread) * share, share));
    const BackwardBuffers buffers(g, scratch);
    const std::int64_t batch = unit / heads_kv;
    const std::int64_t kv_head = first_kv + unit % heads_kv;
    if (params.dkv_assign) clear_keys(params, batch, kv_head);
    const auto poll = [&] {
      if (thread == 0 && context.poll) context.poll();
    };
    for (std::int64_t h = 0; h < g.heads; ++h) {
      if (kv_head_of(g, h) != kv_head) continue;
      BackwardHead head(params, ops, batch, h, buffers);
      for_each_row_block(g, [&](const RowBlock& block) { flops += head.run(block, poll); });
    }
  };
  parallel_for(context.threads, g.batch * heads_kv, context.poll, run_unit);
  if (context.flops != nullptr) *context.flops += flops;
}

}  // namespace annulus::attn::cpu
