#pragma once

#include <annulus/annulus.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace annulus::launch {

/// Which input; part of the generator's counter.
enum class Input : std::uint8_t { q, k, v, dout };

/// Standard normal numbers, each a pure function of (seed, input, batch, position, head, dim), so
/// that any rank can make any element and none has to be sent. Rounded to `dtype`.
class Generator {
 public:
  Generator(std::uint64_t seed, DType dtype) : seed_(seed), dtype_(dtype) {}

  /// The `dims` numbers of one token and head.
  void row(Input input, std::int64_t batch, std::int64_t position, std::int64_t head,
           std::int64_t dims, double* out) const;
  /// All `tokens` rows of one head, compact.
  std::vector<double> head(Input input, std::int64_t batch, std::int64_t tokens, std::int64_t head,
                           std::int64_t dims) const;

 private:
  std::uint64_t seed_;
  DType dtype_;
};

/// A number that looks random, of two others.
std::uint64_t mix(std::uint64_t a, std::uint64_t b);

/// Memory and its view.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d);
  Tensor(DType dtype, std::int64_t a, std::int64_t b, std::int64_t c);

  const TensorView& view() const { return view_; }
  /// Element [a, b, c, d].
  double at(std::int64_t a, std::int64_t b, std::int64_t c, std::int64_t d = 0) const;

 private:
  std::unique_ptr<std::byte[]> data_;  // not a vector: its zeros would touch pages outside timing
  TensorView view_;
};

/// The shards of one rank.
struct Shards {
  Tensor q, k, v, out, lse;
  Tensor dout, dq, dk, dv;  ///< empty without backward
};

/// Threads that fill a rank's tensors: its share of the processors that it may use, were all
/// `world` ranks on this host, and no fewer than it computes with. On GPUs it computes with one,
/// and a million tokens would take it a minute.
int fillers(int world, int threads);

/// Allocates, and fills the inputs.
Shards make_shards(const Problem& resolved_problem, const Sharding& sharding, int rank,
                   const Generator& generator, bool backward, int threads = 1);

}  // namespace annulus::launch
