#include "launch/bench/tensors.h"

#include "launch/bench/element.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <thread>

namespace annulus::launch {
namespace {

/// Uniform in (0, 1]: its logarithm is finite.
double uniform(std::uint64_t bits) { return (static_cast<double>(bits >> 11) + 1.0) * 0x1p-53; }

/// Tokens [begin, end) of all batch elements, counted through.
void fill_tokens(const TensorView& view, Input input, const std::vector<std::int64_t>& positions,
                 const Generator& generator, std::int64_t begin, std::int64_t end) {
  const std::int64_t heads = view.shape[2];
  const std::int64_t dims = view.shape[3];
  const auto tokens = static_cast<std::int64_t>(positions.size());
  std::vector<double> row(static_cast<std::size_t>(dims));
  std::int64_t index = begin * heads * dims;
  for (std::int64_t t = begin; t < end; ++t) {
    const std::int64_t position = positions[static_cast<std::size_t>(t % tokens)];
    for (std::int64_t head = 0; head < heads; ++head) {
      generator.row(input, t / tokens, position, head, dims, row.data());
      for (const double value : row) store_element(view.data, view.dtype, index++, value);
    }
  }
}

/// Values depend on their place alone, so that any number of threads makes the same.
void fill(const Tensor& tensor, Input input, const std::vector<std::int64_t>& positions,
          const Generator& generator, int threads) {
  const TensorView& view = tensor.view();
  const std::int64_t tokens = view.shape[0] * static_cast<std::int64_t>(positions.size());
  const std::int64_t share = (tokens + threads - 1) / threads;
  std::vector<std::jthread> team;
  for (std::int64_t begin = 0; begin < tokens; begin += share) {
    const std::int64_t end = std::min(begin + share, tokens);
    team.emplace_back(
        [&, begin, end] { fill_tokens(view, input, positions, generator, begin, end); });
  }
}

}  // namespace

std::uint64_t mix(std::uint64_t a, std::uint64_t b) {
  // splitmix64's finaliser (Steele, Lea and Flood 2014).
  std::uint64_t x = a + 0x9e3779b97f4a7c15U * (b + 1);
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
  return x ^ (x >> 31);
}

void Generator::row(Input input, std::int64_t batch, std::int64_t position, std::int64_t head,
                    std::int64_t dims, double* out) const {
  std::uint64_t key = mix(seed_, static_cast<std::uint64_t>(input));
  for (const std::int64_t counter : {batch, position, head}) {
    key = mix(key, static_cast<std::uint64_t>(counter));
  }
  for (std::int64_t d = 0; d < dims; d += 2) {
    // Box and Muller: two at a time.
    const auto counter = static_cast<std::uint64_t>(d);
    const double radius = std::sqrt(-2.0 * std::log(uniform(mix(key, counter))));
    const double angle = 2.0 * std::numbers::pi * uniform(mix(key, counter + 1));
    out[d] = rounded(dtype_, radius * std::cos(angle));
    if (d + 1 < dims) out[d + 1] = rounded(dtype_, radius * std::sin(angle));
  }
}

std::vector<double> Generator::head(Input input, std::int64_t batch, std::int64_t tokens,
                                    std::int64_t head, std::int64_t dims) const {
  std::vector<double> values(static_cast<std::size_t>(tokens * dims));
  for (std::int64_t t = 0; t < tokens; ++t) {
    row(input, batch, t, head, dims, values.data() + t * dims);
  }
  return values;
}

Tensor::Tensor(DType dtype, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d)
    : data_(new std::byte[static_cast<std::size_t>(a * b * c * d * size_of(dtype))]),
      view_(data_.get(), dtype, {a, b, c, d}) {}

Tensor::Tensor(DType dtype, std::int64_t a, std::int64_t b, std::int64_t c)
    : data_(new std::byte[static_cast<std::size_t>(a * b * c * size_of(dtype))]),
      view_(data_.get(), dtype, {a, b, c}) {}

double Tensor::at(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d) const {
  const auto& s = view_.strides;
  const std::int64_t last = view_.rank == 4 ? d * s[3] : 0;
  return load_element(view_.data, view_.dtype, a * s[0] + b * s[1] + c * s[2] + last);
}

int fillers(int world, int threads) {
  return std::max(threads, static_cast<int>(std::thread::hardware_concurrency()) / world);
}

Shards make_shards(const Problem& p, const Sharding& sharding, int rank, const Generator& generator,
                   bool backward, int threads) {
  const std::int64_t rows = sharding.seq_local(rank);
  const std::int64_t keys = sharding.seq_kv_local(rank);
  const std::int64_t heads_kv = *p.heads_kv;
  const std::int64_t dim_v = *p.head_dim_v;
  const auto positions = sharding.positions(rank);
  const auto positions_kv = sharding.positions_kv(rank);
  Shards s;
  s.q = Tensor(p.dtype, p.batch, rows, p.heads, p.head_dim);
  s.k = Tensor(p.dtype, p.batch, keys, heads_kv, p.head_dim);
  s.v = Tensor(p.dtype, p.batch, keys, heads_kv, dim_v);
  s.out = Tensor(p.dtype, p.batch, rows, p.heads, dim_v);
  s.lse = Tensor(DType::f32, p.batch, p.heads, rows);
  fill(s.q, Input::q, positions, generator, threads);
  fill(s.k, Input::k, positions_kv, generator, threads);
  fill(s.v, Input::v, positions_kv, generator, threads);
  if (!backward) return s;
  s.dout = Tensor(p.dtype, p.batch, rows, p.heads, dim_v);
  s.dq = Tensor(p.dtype, p.batch, rows, p.heads, p.head_dim);
  s.dk = Tensor(p.dtype, p.batch, keys, heads_kv, p.head_dim);
  s.dv = Tensor(p.dtype, p.batch, keys, heads_kv, dim_v);
  fill(s.dout, Input::dout, positions, generator, threads);
  return s;
}

}  // namespace annulus::launch
