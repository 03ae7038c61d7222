#include "tests/support/launch.h"

#include "runtime/base/dtype.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>
#include <string>

namespace annulus::testing {

namespace {

using Index = std::vector<std::int64_t>;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

Index all_tokens(std::int64_t n) {
  Index tokens(at(n));
  std::iota(tokens.begin(), tokens.end(), std::int64_t{0});
  return tokens;
}

/// The intervals of query position i, found by asking for every key.
RowIntervals intervals_of(const OracleProblem& problem, std::int64_t i) {
  RowIntervals found{};
  std::size_t count = 0;
  bool inside = false;
  for (std::int64_t j = 0; j < problem.seq_kv; ++j) {
    const bool now = allowed(problem, i, j);
    if (now && !inside) {
      if (count == found.size()) throw std::logic_error("a row of the mask has three intervals");
      found[count++].begin = j;
    }
    if (now) found[count - 1].end = j + 1;
    inside = now;
  }
  return found;
}

std::int64_t position_of(const attn::KeySegment& segment, std::int64_t key) {
  return segment.position + key * segment.stride;
}

/// Adds the tile unless none of its pairs is allowed.
void add_tile(TestLaunch& launch, attn::Tile tile) {
  const attn::KeySegment& segment = launch.keys[at(tile.segment)];
  std::int64_t visible = 0;
  for (std::int64_t r = 0; r < tile.rows; ++r) {
    for (std::int64_t j = 0; j < tile.keys; ++j) {
      visible += allowed(launch.problem, tile.row + r, position_of(segment, tile.key + j)) ? 1 : 0;
    }
  }
  tile.full = visible == std::int64_t{tile.rows} * tile.keys;
  if (visible > 0) launch.tiles.push_back(tile);
}

/// Token of each key position; -1 for keys that no launch names, or not of this source.
constexpr std::int32_t kAnySource = -1;
Index key_tokens(const std::vector<TestLaunch>& chain, std::int32_t source = kAnySource) {
  Index tokens(at(chain.front().problem.seq_kv), -1);
  for (const TestLaunch& launch : chain) {
    for (const attn::KeySegment& segment : launch.keys) {
      if (source != kAnySource && segment.source != source) continue;
      for (std::int64_t j = 0; j < segment.count; ++j) {
        tokens[at(position_of(segment, j))] = segment.token + j;
      }
    }
  }
  return tokens;
}

/// Sources that a chain names beside its own k and v.
std::int32_t more_sources(const std::vector<TestLaunch>& chain) {
  std::int32_t most = 0;
  for (const TestLaunch& launch : chain) {
    for (const attn::KeySegment& segment : launch.keys) most = std::max(most, segment.source);
  }
  return most;
}

/// K and V of one of them. No two have the same strides.
struct SourceTensors {
  SourceTensors(const OracleProblem& p, const RunOptions& options, std::int32_t source)
      : k(p.dtype, p.batch, p.seq_kv, p.heads_kv, p.head_dim, options.gap + 8 * source,
          options.heads_first == (source % 2 == 0)),
        v(p.dtype, p.batch, p.seq_kv, p.heads_kv, p.head_dim_v,
          options.gap + options.gap_step + 16 * source, options.heads_first) {}
  TestTensor k, v;
};

/// All operands of a run.
struct Operands {
  Operands(const OracleProblem& p, std::int64_t key_count, std::int64_t gap, std::int64_t gap_step,
           bool first, DType of_key_gradients)
      : q(p.dtype, p.batch, p.seq, p.heads, p.head_dim, gap, first),
        k(p.dtype, p.batch, key_count, p.heads_kv, p.head_dim, gap, first),
        v(p.dtype, p.batch, key_count, p.heads_kv, p.head_dim_v, gap + gap_step, first),
        out(p.dtype, p.batch, p.seq, p.heads, p.head_dim_v, gap, first),
        dout(p.dtype, p.batch, p.seq, p.heads, p.head_dim_v, gap, first),
        lse(DType::f32, p.batch, p.seq, p.heads, 1, gap, first),
        delta(DType::f32, p.batch, p.seq, p.heads, 1, gap, first),
        state(DType::f32, p.batch, p.seq, p.heads, p.head_dim_v, gap, first),
        dq(DType::f32, p.batch, p.seq, p.heads, p.head_dim, gap, first),
        dk(of_key_gradients, p.batch, key_count, p.heads_kv, p.head_dim, gap, first),
        dv(of_key_gradients, p.batch, key_count, p.heads_kv, p.head_dim_v, gap, first) {}
  TestTensor q, k, v, out, dout, lse, delta, state, dq, dk, dv;

  bool gaps_untouched() const {
    const TestTensor* const all[] = {&q, &k, &v, &out, &dout, &lse, &delta, &state, &dq, &dk, &dv};
    return std::all_of(std::begin(all), std::end(all),
                       [](const TestTensor* tensor) { return tensor->gaps_untouched(); });
  }
};

std::vector<double> row_sums(const std::vector<double>& a, const std::vector<double>& b,
                             std::int64_t dim) {
  std::vector<double> sums(a.size() / at(dim), 0.0);
  for (std::size_t i = 0; i < a.size(); ++i) sums[i / at(dim)] += a[i] * b[i];
  return sums;
}

/// [batch, token, head] to [batch, head, token].
std::vector<double> heads_first(const std::vector<double>& values, const OracleProblem& p) {
  std::vector<double> to(values.size());
  for (std::int64_t b = 0; b < p.batch; ++b) {
    for (std::int64_t s = 0; s < p.seq; ++s) {
      for (std::int64_t h = 0; h < p.heads; ++h) {
        to[at((b * p.heads + h) * p.seq + s)] = values[at((b * p.seq + s) * p.heads + h)];
      }
    }
  }
  return to;
}

/// Where values of a token that nothing is is seen of are not zero; compact [batch, token, ...].
std::string not_zero(const char* name, const std::vector<double>& values,
                     const std::vector<bool>& unseen, std::int64_t batch) {
  if (values.empty() || unseen.empty()) return "";
  const std::size_t of_token = values.size() / unseen.size() / at(batch);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const std::size_t token = i / of_token % unseen.size();
    if (unseen[token] && values[i] != 0.0) {
      return std::string(" ") + name + " of token " + std::to_string(token);
    }
  }
  return "";
}

class Runner {
 public:
  Runner(const attn::Kernel& kernel, const std::vector<TestLaunch>& chain,
         const OracleInputs& inputs, const RunOptions& options)
      : kernel_(kernel),
        chain_(chain),
        problem_(chain.front().problem),
        inputs_(inputs),
        options_(options),
        rows_(all_tokens(problem_.seq)),
        keys_(key_tokens(chain)),
        operands_(problem_, problem_.seq_kv, options.gap, options.gap_step, options.heads_first,
                  options.rounded_keys ? problem_.dtype : DType::f32) {
    operands_.q.set(inputs.q, rows_);
    operands_.k.set(inputs.k, key_tokens(chain, 0));
    operands_.v.set(inputs.v, key_tokens(chain, 0));
    for (std::int32_t s = 1; s <= more_sources(chain); ++s) {
      SourceTensors& more = tensors_.emplace_back(problem_, options, s);
      more.k.set(inputs.k, key_tokens(chain, s));
      more.v.set(inputs.v, key_tokens(chain, s));
    }
  }

  RunResult run() {
    forward();
    if (options_.backward) backward();
    result_.gaps_untouched = operands_.gaps_untouched();
    for (const SourceTensors& more : tensors_) {
      result_.gaps_untouched &= more.k.gaps_untouched() && more.v.gaps_untouched();
    }
    return result_;
  }

 private:
  /// Refers to sources_ until the next call.
  attn::AttendGeometry geometry_of(const TestLaunch& launch) {
    attn::AttendGeometry g = launch.geometry();
    sources_.clear();
    for (const SourceTensors& more : tensors_) {
      const auto source = static_cast<std::int32_t>(sources_.size()) + 1;
      sources_.push_back(
          {more.k.input(), more.v.input(), attn::tokens_of(std::span(g.keys), source)});
    }
    g.sources = g.sources_on_host = sources_;
    return g;
  }

  void forward() {
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      const attn::ForwardParams params{
          .geometry = geometry_of(chain_[i]),
          .q = operands_.q.input(),
          .k = operands_.k.input(),
          .v = operands_.v.input(),
          .out = operands_.out.output(),
          .lse = operands_.lse.output(),
          .state = options_.state_in_out ? operands_.out.output() : operands_.state.output(),
          .resume = i > 0,
          .finish = i + 1 == chain_.size()};
      kernel_.forward(params, context(params.geometry, false));
    }
    result_.values.out = operands_.out.get(rows_);
    result_.values.lse = heads_first(operands_.lse.get(rows_), problem_);
  }

  void backward() {
    operands_.dout.set(inputs_.dout, rows_);
    operands_.delta.set(row_sums(inputs_.dout, result_.values.out, problem_.head_dim_v), rows_);
    for (std::size_t i = 0; i < chain_.size(); ++i) {
      const attn::BackwardParams params{.geometry = geometry_of(chain_[i]),
                                        .q = operands_.q.input(),
                                        .k = operands_.k.input(),
                                        .v = operands_.v.input(),
                                        .dout = operands_.dout.input(),
                                        .lse = operands_.lse.input(),
                                        .delta = operands_.delta.input(),
                                        .dq = operands_.dq.output(),
                                        .dk = operands_.dk.output(),
                                        .dv = operands_.dv.output(),
                                        .dq_assign = i == 0,
                                        .dkv_assign = i == 0 || !options_.add_key_gradients};
      kernel_.backward(params, context(params.geometry, true));
    }
    result_.values.dq = operands_.dq.get(rows_);
    result_.values.dk = operands_.dk.get(keys_);
    result_.values.dv = operands_.dv.get(keys_);
  }

  attn::LaunchContext context(const attn::AttendGeometry& geometry, bool backward) {
    const std::int64_t bytes = kernel_.workspace_bytes(geometry, backward, options_.threads);
    workspace_.assign(at(bytes), std::byte{0xff});  // NaN: contents are undefined
    return {options_.threads, [this] { ++result_.polls; },
            backward ? &result_.backward_flops : &result_.forward_flops, workspace_,
            backward ? &result_.backward_bytes : &result_.forward_bytes};
  }

  const attn::Kernel& kernel_;
  const std::vector<TestLaunch>& chain_;
  const OracleProblem& problem_;
  const OracleInputs& inputs_;
  const RunOptions& options_;
  Index rows_, keys_;
  Operands operands_;
  std::vector<SourceTensors> tensors_;
  std::vector<attn::KeySource> sources_;
  std::vector<std::byte> workspace_;
  RunResult result_;
};

}  // namespace

TestTensor::TestTensor(DType dtype, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                       std::int64_t dim, std::int64_t gap, bool heads_first)
    : dtype_(dtype),
      batch_(batch),
      tokens_(tokens),
      heads_(heads),
      dim_(dim),
      head_stride_(heads_first ? tokens * (dim + gap) + gap : dim + gap),
      token_stride_(heads_first ? dim + gap : heads * (dim + gap) + gap),
      batch_stride_((heads_first ? heads * head_stride_ : tokens * token_stride_) + gap),
      bytes_(at(batch * batch_stride_ * size_of(dtype)), std::byte{0xff}) {}

attn::Input TestTensor::input() const {
  return {bytes_.data(), dtype_, batch_stride_, token_stride_, head_stride_};
}

attn::Output TestTensor::output() {
  return {bytes_.data(), dtype_, batch_stride_, token_stride_, head_stride_};
}

/// fn(index into compact values, index into memory); memory -1 where the token is.
template <typename Fn>
void TestTensor::for_each(const std::vector<std::int64_t>& tokens, Fn&& fn) const {
  std::int64_t compact = 0;
  for (std::int64_t b = 0; b < batch_; ++b) {
    for (const std::int64_t token : tokens) {
      for (std::int64_t i = 0; i < heads_ * dim_; ++i) {
        const std::int64_t place =
            b * batch_stride_ + token * token_stride_ + i / dim_ * head_stride_ + i % dim_;
        fn(at(compact++), token < 0 ? -1 : place);
      }
    }
  }
}

void TestTensor::set(const std::vector<double>& values, const std::vector<std::int64_t>& tokens) {
  for_each(tokens, [&](std::size_t compact, std::int64_t place) {
    if (place >= 0) store_f64(bytes_.data(), dtype_, place, values[compact]);
  });
}

std::vector<double> TestTensor::get(const std::vector<std::int64_t>& tokens) const {
  std::vector<double> values(at(batch_ * heads_ * dim_) * tokens.size());
  for_each(tokens, [&](std::size_t compact, std::int64_t place) {
    values[compact] = place < 0 ? 0.0 : load_f64(bytes_.data(), dtype_, place);
  });
  return values;
}

bool TestTensor::gaps_untouched() const {
  std::vector<bool> element(at(batch_ * batch_stride_), false);
  for_each(all_tokens(tokens_),
           [&](std::size_t, std::int64_t place) { element[at(place)] = true; });
  const auto size = static_cast<std::ptrdiff_t>(size_of(dtype_));
  auto bytes = bytes_.begin();
  for (const bool is_element : element) {
    if (!is_element && std::count(bytes, bytes + size, std::byte{0xff}) != size) return false;
    bytes += size;
  }
  return true;
}

attn::AttendGeometry TestLaunch::geometry() const {
  return {.batch = problem.batch,
          .heads = problem.heads,
          .head_offset = 0,
          .group = problem.heads / problem.heads_kv,
          .head_dim = problem.head_dim,
          .head_dim_v = problem.head_dim_v,
          .softmax_scale = problem.softmax_scale,
          .softcap = problem.softcap,
          .sequence_keys = sequence_keys,
          .sequence_rows = sequence_keys > 0 ? problem.seq : 0,
          .all_heads = sequence_keys > 0 ? problem.heads * problem.batch : 0,
          .rows = problem.seq,
          .queries = queries,
          .keys = keys,
          .tiles = tiles,
          .intervals = intervals,
          .key_tokens = attn::tokens_of(std::span<const attn::KeySegment>(keys)),
          .query_tokens = attn::tokens_of(std::span<const attn::QuerySegment>(queries))};
}

TestLaunch make_launch(const OracleProblem& problem, const std::vector<attn::KeySegment>& keys,
                       const TileGrid& grid) {
  TestLaunch launch{problem, {{0, 0, problem.seq}}, keys, {}, {}};
  for (std::int64_t i = 0; i < problem.seq; ++i) {
    launch.intervals.push_back(intervals_of(problem, i));
  }
  for (std::int64_t row = 0; row < problem.seq; row += grid.rows) {
    const std::int64_t rows = std::min(grid.rows, problem.seq - row);
    for (std::size_t s = 0; s < keys.size(); ++s) {
      for (std::int64_t key = 0; key < keys[s].count; key += grid.keys) {
        add_tile(launch,
                 {static_cast<std::int32_t>(row), static_cast<std::int32_t>(rows),
                  static_cast<std::int32_t>(s),
                  static_cast<std::int32_t>(std::min(grid.keys, keys[s].count - key)), key, false});
      }
    }
  }
  return launch;
}

std::int64_t pairs_of(const std::vector<TestLaunch>& chain) {
  std::int64_t pairs = 0;
  for (const TestLaunch& launch : chain) {
    for (const attn::Tile& tile : launch.tiles) pairs += std::int64_t{tile.rows} * tile.keys;
  }
  const OracleProblem& p = chain.front().problem;
  return pairs * p.batch * p.heads;
}

std::string unseen_not_zero(const TestLaunch& launch, const OracleResult& values) {
  const OracleProblem& p = launch.problem;
  std::vector<bool> rows(at(p.seq), true), keys(at(p.seq_kv), true);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    for (const KeyInterval& interval : launch.intervals[i]) {
      for (std::int64_t j = interval.begin; j < interval.end; ++j) {
        rows[i] = false;
        keys[at(j)] = false;
      }
    }
  }
  return not_zero("out", values.out, rows, p.batch) + not_zero("dq", values.dq, rows, p.batch) +
         not_zero("dk", values.dk, keys, p.batch) + not_zero("dv", values.dv, keys, p.batch);
}

RunResult run_kernel(const attn::Kernel& kernel, const std::vector<TestLaunch>& chain,
                     const OracleInputs& inputs, const RunOptions& options) {
  return Runner(kernel, chain, inputs, options).run();
}

}  // namespace annulus::testing
