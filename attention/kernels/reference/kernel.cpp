// The reference as a local kernel: one query row at a time, one pair at a time, online softmax in
// float64, one rounding at the end. One thread. dk and dv gather in the workspace, for one
// key/value head at a time, so that they too are rounded once. No limit but the workspace:
// float64 copies of the launch's keys.
#include "attention/kernels/reference/kernel.h"

#include "attention/kernels/operand.h"
#include "attention/kernels/reference/loops.h"
#include "runtime/base/dtype.h"

#include <algorithm>
#include <cstddef>

namespace annulus::attn::reference {

namespace {

/// Float64 arrays in the workspace; without memory it only counts.
class Doubles {
 public:
  explicit Doubles(std::byte* memory = nullptr) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    const std::uintptr_t aligned = (address + alignof(double) - 1) / alignof(double);
    base_ = memory == nullptr ? nullptr : memory + (aligned * alignof(double) - address);
  }
  double* take(std::int64_t n) {
    const std::int64_t at = used_;
    used_ += n * static_cast<std::int64_t>(sizeof(double));
    return base_ == nullptr ? nullptr : reinterpret_cast<double*>(base_ + at);
  }
  std::int64_t bytes() const { return used_ + static_cast<std::int64_t>(alignof(double)); }

 private:
  std::byte* base_ = nullptr;
  std::int64_t used_ = 0;
};

std::int64_t key_count(const AttendGeometry& g) {
  std::int64_t count = 0;
  for (const KeySegment& segment : g.keys) count += segment.count;
  return count;
}

struct Buffers {
  Buffers(const AttendGeometry& g, Doubles memory, bool backward) {
    const std::int64_t keys = key_count(g);
    q = memory.take(g.head_dim);
    row_v = memory.take(g.head_dim_v);
    k = memory.take(keys * g.head_dim);
    v = memory.take(keys * g.head_dim_v);
    if (backward) {
      dq = memory.take(g.head_dim);
      dk = memory.take(keys * g.head_dim);
      dv = memory.take(keys * g.head_dim_v);
    }
    bytes = memory.bytes();
  }
  double *q, *row_v, *k, *v;  ///< row_v: O in forward, dO in backward
  double *dq = nullptr, *dk = nullptr, *dv = nullptr;
  std::int64_t bytes = 0;
};

void load(const Input& operand, std::int64_t batch, std::int64_t token, std::int64_t head,
          std::int64_t dim, double* target) {
  const std::int64_t at = offset_of(operand, batch, token, head);
  for (std::int64_t d = 0; d < dim; ++d) {
    target[d] = load_f64(operand.data, operand.dtype, at + d);
  }
}

double load_one(const Input& operand, std::int64_t batch, std::int64_t token, std::int64_t head) {
  return load_f64(operand.data, operand.dtype, offset_of(operand, batch, token, head));
}

/// Writes `values`, or adds them to what is there.
void store(const Output& operand, std::int64_t batch, std::int64_t token, std::int64_t head,
           std::int64_t dim, const double* values, bool assign) {
  const std::int64_t at = offset_of(operand, batch, token, head);
  for (std::int64_t d = 0; d < dim; ++d) {
    const double old = assign ? 0.0 : load_f64(operand.data, operand.dtype, at + d);
    store_f64(operand.data, operand.dtype, at + d, old + values[d]);
  }
}

/// fn(segment, token, index) for every key of the launch; index counts through all segments.
template <typename Fn>
void for_each_key(const AttendGeometry& g, Fn&& fn) {
  std::int64_t index = 0;
  for (const KeySegment& segment : g.keys) {
    for (std::int64_t j = 0; j < segment.count; ++j) fn(segment, segment.token + j, index++);
  }
}

template <typename Params>
void load_keys(const Params& p, std::int64_t batch, std::int64_t kv_head, const Buffers& w) {
  const AttendGeometry& g = p.geometry;
  for_each_key(g, [&](const KeySegment& of, std::int64_t token, std::int64_t index) {
    load(keys_of(p, of), batch, token, kv_head, g.head_dim, w.k + index * g.head_dim);
    load(values_of(p, of), batch, token, kv_head, g.head_dim_v, w.v + index * g.head_dim_v);
  });
}

/// fn(index) for each key that the tiles let launch row `row` see; counts every pair of the tiles
/// in `pairs`, masked or not, because that is what a tile product computes.
template <typename Fn>
void for_each_visible(const AttendGeometry& g, std::int64_t row, std::int64_t& pairs, Fn&& fn) {
  for (const Tile& tile : g.tiles) {
    if (row < tile.row || row >= tile.row + tile.rows) continue;
    pairs += tile.keys;
    const auto segment = static_cast<std::size_t>(tile.segment);
    std::int64_t base = tile.key;
    for (std::size_t s = 0; s < segment; ++s) base += g.keys[s].count;
    for (std::int64_t j = 0; j < tile.keys; ++j) {
      const std::int64_t position =
          g.keys[segment].position + (tile.key + j) * g.keys[segment].stride;
      if (tile.full || sees(g.intervals[static_cast<std::size_t>(row)], position)) fn(base + j);
    }
  }
}

/// The running softmax of one row.
struct OnlineRow {
  double max = kNothing;
  double sum = 0.0;

  void add(double logit, const double* v, std::int64_t dim, double* o) {
    const double new_max = max_or_nan(max, logit);
    const double rescale = max == kNothing ? 0.0 : std::exp(max - new_max);
    const double p = new_max == kNothing ? 0.0 : std::exp(logit - new_max);
    for (std::int64_t d = 0; d < dim; ++d) o[d] = o[d] * rescale + p * v[d];
    sum = sum * rescale + p;
    max = new_max;
  }
};

void forward_row(const ForwardParams& params, std::int64_t batch, std::int64_t head,
                 std::int64_t row, const Buffers& w, std::int64_t& pairs) {
  const AttendGeometry& g = params.geometry;
  const std::int64_t token = token_of_row(g, row);
  load(params.q, batch, token, head, g.head_dim, w.q);
  std::fill_n(w.row_v, g.head_dim_v, 0.0);
  OnlineRow online;
  if (params.resume) {
    const double lse = load_one(as_input(params.lse), batch, token, head);
    if (lse != kNothing) {
      online = {lse, 1.0};
      load(as_input(params.state), batch, token, head, g.head_dim_v, w.row_v);
    }
  }
  for_each_visible(g, row, pairs, [&](std::int64_t key) {
    const double product = dot(w.q, w.k + key * g.head_dim, g.head_dim);
    online.add(logit_of(product, g.softmax_scale, g.softcap).value, w.v + key * g.head_dim_v,
               g.head_dim_v, w.row_v);
  });
  const bool unseen = online.sum == 0.0;
  for (std::int64_t d = 0; d < g.head_dim_v && !unseen; ++d) w.row_v[d] /= online.sum;
  const Output& target = params.finish ? params.out : params.state;
  store(target, batch, token, head, g.head_dim_v, w.row_v, true);
  const double lse = unseen ? kNothing : online.max + std::log(online.sum);
  store(params.lse, batch, token, head, 1, &lse, true);
}

void backward_row(const BackwardParams& params, std::int64_t batch, std::int64_t head,
                  std::int64_t row, const Buffers& w, std::int64_t& pairs) {
  const AttendGeometry& g = params.geometry;
  const std::int64_t token = token_of_row(g, row);
  load(params.q, batch, token, head, g.head_dim, w.q);
  load(params.dout, batch, token, head, g.head_dim_v, w.row_v);
  std::fill_n(w.dq, g.head_dim, 0.0);
  const double lse = load_one(params.lse, batch, token, head);
  const double delta = load_one(params.delta, batch, token, head);
  for_each_visible(g, row, pairs, [&](std::int64_t key) {
    if (lse == kNothing) return;
    const double* k = w.k + key * g.head_dim;
    const double* v = w.v + key * g.head_dim_v;
    const Logit logit = logit_of(dot(w.q, k, g.head_dim), g.softmax_scale, g.softcap);
    const double p = std::exp(logit.value - lse);
    const double dp = dot(w.row_v, v, g.head_dim_v);
    const double ds = p * (dp - delta) * logit.slope * g.softmax_scale;
    add_scaled(ds, k, g.head_dim, w.dq);
    add_scaled(ds, w.q, g.head_dim, w.dk + key * g.head_dim);
    add_scaled(p, w.row_v, g.head_dim_v, w.dv + key * g.head_dim_v);
  });
  store(params.dq, batch, token, head, g.head_dim, w.dq, params.dq_assign);
}

void forward(const ForwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  const Buffers w(g, Doubles(context.workspace.data()), false);
  std::int64_t pairs = 0;
  for (std::int64_t batch = 0; batch < g.batch; ++batch) {
    for (std::int64_t head = 0; head < g.heads; ++head) {
      load_keys(params, batch, kv_head_of(g, head), w);
      for (std::int64_t row = 0; row < g.rows; ++row) {
        if (context.poll) context.poll();
        forward_row(params, batch, head, row, w, pairs);
      }
    }
  }
  if (context.flops != nullptr) *context.flops += 2 * pairs * (g.head_dim + g.head_dim_v);
}

/// All query heads that read one key/value head.
void backward_kv_head(const BackwardParams& params, const LaunchContext& context,
                      std::int64_t batch, std::int64_t kv_head, const Buffers& w,
                      std::int64_t& pairs) {
  const AttendGeometry& g = params.geometry;
  load_keys(params, batch, kv_head, w);
  std::fill_n(w.dk, key_count(g) * g.head_dim, 0.0);
  std::fill_n(w.dv, key_count(g) * g.head_dim_v, 0.0);
  for (std::int64_t head = 0; head < g.heads; ++head) {
    if (kv_head_of(g, head) != kv_head) continue;
    for (std::int64_t row = 0; row < g.rows; ++row) {
      if (context.poll) context.poll();
      backward_row(params, batch, head, row, w, pairs);
    }
  }
  for_each_key(g, [&](const KeySegment& /*of*/, std::int64_t token, std::int64_t index) {
    store(params.dk, batch, token, kv_head, g.head_dim, w.dk + index * g.head_dim,
          params.dkv_assign);
    store(params.dv, batch, token, kv_head, g.head_dim_v, w.dv + index * g.head_dim_v,
          params.dkv_assign);
  });
}

void backward(const BackwardParams& params, const LaunchContext& context) {
  const AttendGeometry& g = params.geometry;
  if (g.heads == 0) return;
  const Buffers w(g, Doubles(context.workspace.data()), true);
  std::int64_t pairs = 0;
  for (std::int64_t batch = 0; batch < g.batch; ++batch) {
    for (std::int64_t kv = kv_head_of(g, 0); kv <= kv_head_of(g, g.heads - 1); ++kv) {
      backward_kv_head(params, context, batch, kv, w, pairs);
    }
  }
  if (context.flops != nullptr) *context.flops += 2 * pairs * (3 * g.head_dim + 2 * g.head_dim_v);
}

std::string refuses(const KernelQuery& query) {
  return query.head_dim >= 1 && query.head_dim_v >= 1 ? "" : "serves head dims from 1";
}

std::int64_t workspace_bytes(const AttendGeometry& geometry, bool backward, int /*threads*/) {
  return Buffers(geometry, Doubles(), backward).bytes;
}

std::int64_t materialized_bytes(const AttendGeometry& geometry, bool backward) {
  return Buffers(geometry, Doubles(), backward).bytes;
}

/// What is stored is of any dtype.
bool rounds_dkv(const KernelQuery& /*query*/) { return true; }

constexpr Kernel kReference{.name = "reference",
                            .backend = "cpu",
                            .tile_q = 64,
                            .tile_k = 128,
                            .rounds_dkv = rounds_dkv,
                            .refuses = refuses,
                            .workspace_bytes = workspace_bytes,
                            .materialized_bytes = materialized_bytes,
                            .forward = forward,
                            .backward = backward};

}  // namespace

const Kernel& reference_kernel() { return kReference; }

}  // namespace annulus::attn::reference
