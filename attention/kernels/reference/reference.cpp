// Attention in float64 from its definition, one query head at a time. Rows are taken a few at a
// time past blocks of keys, only so that keys stay in cache; nothing is rescaled or merged.
#include <annulus/reference.h>

#include "attention/kernels/reference/loops.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace annulus {

namespace {

using attn::reference::add_scaled;
using attn::reference::dot;
using attn::reference::kNothing;
using attn::reference::Logit;
using attn::reference::logit_of;
using attn::reference::max_or_nan;

constexpr std::int64_t kRowGroup = 8;   // rows that share a key block while it is in cache
constexpr std::int64_t kKeyBlock = 64;  // 64 keys of dim 128 in float64 are 64 KiB

std::int64_t size(std::span<const std::int64_t> indices) {
  return static_cast<std::int64_t>(indices.size());
}

bool sees(std::span<const KeyInterval> intervals, std::int64_t key) {
  const auto after = std::ranges::upper_bound(intervals, key, {}, &KeyInterval::begin);
  return after != intervals.begin() && key < std::prev(after)->end;
}

/// fn(i, key) for each visible pair of rows[first, last) and all keys.
template <typename Fn>
void for_each_pair(const ReferenceHead& head, std::span<const std::int64_t> rows,
                   std::int64_t first, std::int64_t last, Fn&& fn) {
  for (std::int64_t block = 0; block < head.seq_kv; block += kKeyBlock) {
    const std::int64_t block_end = std::min(head.seq_kv, block + kKeyBlock);
    for (std::int64_t i = first; i < last; ++i) {
      for (const KeyInterval& interval : head.mask->row(rows[static_cast<std::size_t>(i)])) {
        const std::int64_t end = std::min(interval.end, block_end);
        for (std::int64_t key = std::max(interval.begin, block); key < end; ++key) fn(i, key);
      }
    }
  }
}

double product(const ReferenceHead& head, std::int64_t row, std::int64_t key) {
  return dot(head.q + row * head.head_dim, head.k + key * head.head_dim, head.head_dim);
}

/// P and dS of one visible pair.
struct PairGradient {
  double p = 0.0;
  double ds = 0.0;  ///< d loss / d (q.k): softmax_scale and the softcap's slope are in it
};

PairGradient gradient(const ReferenceHead& head, std::int64_t row, std::int64_t key, double lse,
                      double delta) {
  const Logit logit = logit_of(product(head, row, key), head.softmax_scale, head.softcap);
  const double p = std::exp(logit.value - lse);
  const double dp =
      dot(head.dout + row * head.head_dim_v, head.v + key * head.head_dim_v, head.head_dim_v);
  return {p, p * (dp - delta) * logit.slope * head.softmax_scale};
}

/// Softmax of scores[0, seq_kv) in place, masked ones being -inf. Returns the log of the sum.
double softmax(double* scores, std::int64_t count) {
  double max = kNothing;
  for (std::int64_t j = 0; j < count; ++j) max = max_or_nan(max, scores[j]);
  if (max == kNothing) return kNothing;
  double sum = 0.0;
  for (std::int64_t j = 0; j < count; ++j) {
    if (scores[j] != kNothing) sum += std::exp(scores[j] - max);
  }
  const double lse = max + std::log(sum);
  for (std::int64_t j = 0; j < count; ++j) {
    if (scores[j] != kNothing) scores[j] = std::exp(scores[j] - max) / sum;
  }
  return lse;
}

}  // namespace

void reference_forward(const ReferenceHead& head, std::span<const std::int64_t> rows, double* out,
                       double* lse) {
  std::vector<double> scores(static_cast<std::size_t>(kRowGroup * head.seq_kv));
  std::fill_n(out, size(rows) * head.head_dim_v, 0.0);
  for (std::int64_t first = 0; first < size(rows); first += kRowGroup) {
    const std::int64_t last = std::min(size(rows), first + kRowGroup);
    std::fill(scores.begin(), scores.end(), kNothing);
    const auto row_scores = [&](std::int64_t i) {
      return scores.data() + (i - first) * head.seq_kv;
    };
    for_each_pair(head, rows, first, last, [&](std::int64_t i, std::int64_t key) {
      const double qk = product(head, rows[static_cast<std::size_t>(i)], key);
      row_scores(i)[key] = logit_of(qk, head.softmax_scale, head.softcap).value;
    });
    for (std::int64_t i = first; i < last; ++i) lse[i] = softmax(row_scores(i), head.seq_kv);
    for_each_pair(head, rows, first, last, [&](std::int64_t i, std::int64_t key) {
      add_scaled(row_scores(i)[key], head.v + key * head.head_dim_v, head.head_dim_v,
                 out + i * head.head_dim_v);
    });
  }
}

void reference_backward_rows(const ReferenceHead& head, std::span<const std::int64_t> rows,
                             const double* lse, const double* delta, double* dq) {
  std::fill_n(dq, size(rows) * head.head_dim, 0.0);
  for (std::int64_t first = 0; first < size(rows); first += kRowGroup) {
    const std::int64_t last = std::min(size(rows), first + kRowGroup);
    for_each_pair(head, rows, first, last, [&](std::int64_t i, std::int64_t key) {
      const std::int64_t row = rows[static_cast<std::size_t>(i)];
      const PairGradient pair = gradient(head, row, key, lse[i], delta[i]);
      add_scaled(pair.ds, head.k + key * head.head_dim, head.head_dim, dq + i * head.head_dim);
    });
  }
}

void reference_backward_keys(const ReferenceHead& head, std::span<const std::int64_t> keys,
                             const double* lse, const double* delta, double* dk, double* dv) {
  for (std::int64_t first = 0; first < size(keys); first += kKeyBlock) {
    const std::int64_t last = std::min(size(keys), first + kKeyBlock);
    for (std::int64_t row = 0; row < head.seq; ++row) {
      for (std::int64_t j = first; j < last; ++j) {
        const std::int64_t key = keys[static_cast<std::size_t>(j)];
        if (!sees(head.mask->row(row), key)) continue;
        const PairGradient pair = gradient(head, row, key, lse[row], delta[row]);
        add_scaled(pair.p, head.dout + row * head.head_dim_v, head.head_dim_v,
                   dv + j * head.head_dim_v);
        add_scaled(pair.ds, head.q + row * head.head_dim, head.head_dim, dk + j * head.head_dim);
      }
    }
  }
}

}  // namespace annulus
