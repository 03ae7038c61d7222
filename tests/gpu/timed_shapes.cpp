#include "tests/gpu/timed_shapes.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>

namespace annulus::testing {

std::string name_of(const TimedShape& s) {
  std::string name = s.dtype == DType::bf16 ? "bf16 " : "f16 ";
  name += std::to_string(s.dim);
  if (s.values() != s.dim) name.append(":").append(std::to_string(s.values()));
  name += s.causal ? " causal " : " full ";
  return name + std::to_string(s.seq);
}

TimedSequences::TimedSequences(const TimedShape& c, const attn::Kernel& kernel, bool backward,
                               int segments) {
  const std::int64_t seq = c.seq;
  const std::int64_t part = seq / segments;
  const attn::TileLimits most = attn::tiles_for(kernel, {.dtype = c.dtype,
                                                         .head_dim = c.dim,
                                                         .head_dim_v = c.values(),
                                                         .backward = backward,
                                                         .backend = kernel.backend,
                                                         .keys = seq});
  for (std::int64_t i = 0; i < seq; ++i) {
    intervals.push_back({KeyInterval{0, c.causal ? i + 1 : seq}, KeyInterval{}});
  }
  for (int s = 0; s < segments; ++s) keys.push_back({s * part, s * part, 1, part});
  for (std::int64_t row = 0; row < seq; row += most.rows) {
    const std::int64_t rows = std::min(most.rows, seq - row);
    const std::int64_t end = c.causal ? row + rows : seq;
    for (int s = 0; s < segments; ++s) {
      const std::int64_t first = s * part;
      for (std::int64_t key = 0; key < std::min(part, end - first); key += most.keys) {
        const std::int64_t count = std::min(most.keys, part - key);
        const bool full = !c.causal || first + key + count <= row + 1;
        tiles.push_back({static_cast<std::int32_t>(row), static_cast<std::int32_t>(rows), s,
                         static_cast<std::int32_t>(count), key, full});
      }
    }
  }
  queries = {{0, 0, seq}};
  geometry = {.batch = std::max<std::int64_t>(1, 16384 / seq),
              .heads = 16,
              .head_dim = c.dim,
              .head_dim_v = c.values(),
              .softmax_scale = 1.0 / std::sqrt(static_cast<double>(c.dim)),
              .sequence_keys = seq,  // as callers say it: tunings go by it
              .sequence_rows = seq,
              .all_heads = 16 * std::max<std::int64_t>(1, 16384 / seq),
              .rows = seq,
              .queries = queries,
              .keys = keys,
              .tiles = tiles,
              .intervals = intervals,
              .key_tokens = seq,
              .query_tokens = seq};
  pairs = static_cast<double>(c.causal ? seq * (seq + 1) / 2 : seq * seq) * 16.0 *
          static_cast<double>(geometry.batch);
}

DeviceBytes random_elements(DType dtype, std::int64_t count, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal;
  std::vector<std::uint16_t> block(std::size_t{1} << 20);
  for (std::uint16_t& x : block) {
    const auto bits = std::bit_cast<std::uint32_t>(normal(generator));
    const auto exponent = static_cast<int>((bits >> 23) & 255U) - 112;
    const std::uint32_t half =
        exponent <= 0 ? 0U : (static_cast<std::uint32_t>(exponent) << 10) | ((bits >> 13) & 1023U);
    x = static_cast<std::uint16_t>(dtype == DType::bf16 ? bits >> 16
                                                        : ((bits >> 16) & 0x8000U) | half);
  }
  DeviceBytes memory(static_cast<std::size_t>(count * 2));
  for (std::size_t at = 0; at < memory.size(); at += block.size() * 2) {
    check_cuda(cudaMemcpy(memory.data() + at, block.data(),
                          std::min(block.size() * 2, memory.size() - at), cudaMemcpyHostToDevice),
               "upload");
  }
  return memory;
}

double median(std::vector<float> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return static_cast<double>(*middle);
}

}  // namespace annulus::testing
