#pragma once

#include "attention/kernels/sm90/shared.cuh"

#include <cstdint>

// What happens to the scores of a step between the two products, in the registers of a consumer:
// half a score a key and thread, of rows lane / 4 and lane / 4 + 8 of its warp's 16 (wgmma.cuh).
namespace annulus::attn::sm90 {

/// tanh by 1 - 2 / (exp(2x) + 1): absolute error near 2^-23 (numbers.cuh of
/// attention/kernels/cuda).
__device__ __forceinline__ float tanh_fast(float x) {
  return 1.0F - __fdividef(2.0F, exp2_fast(2.0F * cuda::kLog2E * fminf(x, 40.0F)) + 1.0F);
}

template <int kScores>
__device__ __forceinline__ void cap_scores(const cuda::Geometry& g, float (&s)[kScores]) {
  const auto softcap = static_cast<float>(g.softcap);
  const float factor = static_cast<float>(g.softmax_scale) / softcap;
#pragma unroll
  for (int i = 0; i < kScores; ++i) s[i] = softcap * tanh_fast(s[i] * factor);
}

/// One of the two intervals of a row, as keys [begin, end) of the step.
struct Seen {
  int begin, end;
};

/// Lane l: interval l / 16 of the warp's row l % 16; `row`: the warp's first, within the item.
__device__ __forceinline__ Seen seen_by_lane(const cuda::Geometry& g, const Item& item,
                                             const Step& step, int row, int lane) {
  const int r = row + (lane & 15);
  const int which = lane >> 4;
  if (r >= step.rows) return {0, 0};
  if (step.full != 0) return {0, which == 0 ? step.keys : 0};
  const KeyInterval interval = g.intervals[2 * (item.tile.row + r) + which];
  return {cuda::key_index(interval.begin, step.position, step.stride, step.keys),
          cuda::key_index(interval.end, step.position, step.stride, step.keys)};
}

__device__ __forceinline__ std::uint32_t bits_of(const Seen& seen, int key) {
  return cuda::low_bits(seen.end - key) & ~cuda::low_bits(seen.begin - key);
}

/// Scores that are not to be seen become -inf. `mine`: seen_by_lane; some[h]: the thread's row h
/// does not see as many keys as a whole step has. Of fewer keys it never does: how many there are
/// may depend on what other rows of the launch see, and a row's bits must not.
template <int kScores>
__device__ __forceinline__ void mask_scores(const Seen& mine, int lane, float (&s)[kScores],
                                            bool (&some)[2]) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    Seen seen[2];
    some[h] = true;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int from = 16 * i + 8 * h + (lane >> 2);
      seen[i].begin = __shfl_sync(0xffffffffU, mine.begin, from);
      seen[i].end = __shfl_sync(0xffffffffU, mine.end, from);
      if (seen[i].begin <= 0 && seen[i].end >= 2 * kScores) some[h] = false;
    }
#pragma unroll
    for (int key = 0; key < 2 * kScores; key += 32) {
      const std::uint32_t bits =
          (bits_of(seen[0], key) | bits_of(seen[1], key)) >> (2 * (lane & 3));
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        if (key / 8 + i / 2 >= kScores / 4) break;
        float& x = s[4 * (key / 8 + i / 2) + 2 * h + i % 2];
        if (((bits >> (8 * (i / 2) + i % 2)) & 1U) == 0) x = -cuda::kInfinity;
      }
    }
  }
}

/// Of the thread's two rows: the largest score, and the sum of this thread's probabilities.
struct RowSums {
  float max[2], sum[2];
};

/// Of the thread's row h: the largest of what it held and the scores.
template <int kScores>
__device__ __forceinline__ float top_of_row(const float (&s)[kScores], const RowSums& rows, int h) {
  // Four maxima side by side: none waits for the one before.
  float tops[4];
#pragma unroll
  for (int j = 0; j < kScores / 4; ++j) {
    const float pair = fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]);
    tops[j % 4] = j < 4 ? pair : fmaxf(tops[j % 4], pair);
  }
  float top = fmaxf(fmaxf(tops[0], tops[1]), fmaxf(tops[2], fmaxf(tops[3], rows.max[h])));
  top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
  return fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
}

/// What a maximum becomes as an exponent of 2.
__device__ __forceinline__ float shift_of(float max, float scale) {
  return max == -cuda::kInfinity ? 0.0F : __fmul_rn(max, scale);
}

/// What a new maximum leaves of what was summed under another. Both products are rounded: exactly 1
/// where the maximum stays.
__device__ __forceinline__ float kept(float before, float now, float scale) {
  return exp2_fast(__fmul_rn(before, scale) - shift_of(now, scale));
}

/// The scores' part in the maxima; keep[h]: what these leave of what was summed so far. `scale`:
/// what takes a score to exponents of 2. A row's maximum stays where it would grow by slack[h]
/// exponents at most. False where all maxima of the warp stay: nothing is to be rescaled then.
template <int kScores>
__device__ __forceinline__ bool raise_maxima(const float (&s)[kScores], RowSums& rows, float scale,
                                             const float (&slack)[2], float (&keep)[2]) {
  float top[2] = {top_of_row(s, rows, 0), top_of_row(s, rows, 1)};
  // Each row decides for itself, so that its bits do not depend on which rows share its warp.
  bool any = false;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const bool row = (top[h] - rows.max[h]) * scale > slack[h];  // no NaN counts
    if (!row) top[h] = rows.max[h];
    any = any || row;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    keep[h] = kept(rows.max[h], top[h], scale);
    rows.max[h] = top[h];
  }
  return __any_sync(0xffffffffU, any) != 0;
}

/// Scores of the thread's row h to probabilities, under `shift`; their sum.
template <int kScores>
__device__ __forceinline__ float exponentiate_row(float (&s)[kScores], float scale, float shift,
                                                  int h) {
  float part = 0.0F;
#pragma unroll
  for (int j = 0; j < kScores / 4; ++j) {
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float& x = s[4 * j + 2 * h + e];
      x = exp2_fast(fmaf(x, scale, -shift));
      part += x;
    }
  }
  return part;
}

/// Scores of the thread's row h, whose maximum is known, to probabilities, and these to its sum.
template <int kScores>
__device__ __forceinline__ void exponentiate(float (&s)[kScores], RowSums& rows, float scale,
                                             const float (&keep)[2], int h) {
  const float part = exponentiate_row(s, scale, shift_of(rows.max[h], scale), h);
  // Never one rounding with what is added.
  rows.sum[h] = __fadd_rn(__fmul_rn(rows.sum[h], keep[h]), part);
}

/// The same under the maximum of before, which the row's scores may exceed; nothing is added to the
/// sum. Of a row that has seen nothing all are infinite, or no numbers.
template <int kScores>
__device__ __forceinline__ float exponentiate_early(float (&s)[kScores], const RowSums& rows,
                                                    float scale, int h) {
  return exponentiate_row(s, scale, __fmul_rn(rows.max[h], scale), h);
}

/// exponentiate, but each pair of probabilities is packed at once, where registers are few; the
/// same bits.
template <typename T, int kScores>
__device__ __forceinline__ void exponentiate_packed(const float (&s)[kScores], RowSums& rows,
                                                    float scale, const float (&keep)[2], int h,
                                                    std::uint32_t (&p)[kScores / 2]) {
  const float shift = shift_of(rows.max[h], scale);
  float part = 0.0F;
#pragma unroll
  for (int j = 0; j < kScores / 4; ++j) {
    const float x = exp2_fast(fmaf(s[4 * j + 2 * h], scale, -shift));
    const float y = exp2_fast(fmaf(s[4 * j + 2 * h + 1], scale, -shift));
    part += x;
    part += y;
    p[2 * j + h] = pack(x, y, T());
  }
  rows.sum[h] = __fadd_rn(__fmul_rn(rows.sum[h], keep[h]), part);
}

/// Scores of a first step wait in registers that output and probabilities will have: the next
/// products write those that they are in.
template <int kScores, int kOutput>
__device__ __forceinline__ void set_aside(const float (&s)[kScores], float (&o)[kOutput],
                                          std::uint32_t (&p)[kScores / 2]) {
  static_assert(kScores <= kOutput + kScores / 2);
#pragma unroll
  for (int i = 0; i < kScores; ++i) {
    if (i < kOutput) {
      o[i] = s[i];
    } else {
      p[i - kOutput] = __float_as_uint(s[i]);
    }
  }
}
template <int kScores, int kOutput>
__device__ __forceinline__ void bring_back(const float (&o)[kOutput],
                                           const std::uint32_t (&p)[kScores / 2],
                                           float (&s)[kScores]) {
#pragma unroll
  for (int i = 0; i < kScores; ++i) s[i] = i < kOutput ? o[i] : __uint_as_float(p[i - kOutput]);
}

/// Probabilities as the left operand of the product with V: the layout of a product's rows is that
/// of an operand's.
template <typename T, int kScores>
__device__ __forceinline__ void pack_scores(const float (&s)[kScores],
                                            std::uint32_t (&p)[kScores / 2]) {
#pragma unroll
  for (int i = 0; i < kScores / 2; ++i) p[i] = pack(s[2 * i], s[2 * i + 1], T());
}

}  // namespace annulus::attn::sm90
