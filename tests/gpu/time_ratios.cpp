#include "tests/gpu/time_ratios.h"

#include "attention/kernels/cuda/table.h"
#include "tests/gpu/launch_times.h"

#include <annulus/error.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace annulus::testing {

namespace {

constexpr int kWarmUp = 3;
constexpr int kRounds = 30;
constexpr std::int64_t kHeads = 16;

std::size_t bytes_of(std::int64_t count) { return static_cast<std::size_t>(count); }

/// Operands of one shape, and a launch of each pass as it is on one GPU.
struct Operands {
  explicit Operands(const TimedShape& shape)
      : s(shape),
        rows(std::max<std::int64_t>(1, 16384 / s.seq) * s.seq * kHeads),
        q(random_elements(s.dtype, rows * s.dim, 1)),
        k(random_elements(s.dtype, rows * s.dim, 2)),
        v(random_elements(s.dtype, rows * s.dim, 3)),
        dout(random_elements(s.dtype, rows * s.dim, 4)),
        out(bytes_of(rows * s.dim * 2)),
        lse(bytes_of(rows * 4)),
        delta(lse.size()) {
    check_cuda(cudaMemset(delta.data(), 0, delta.size()), "cudaMemset");
  }

  attn::Output output(const DeviceBytes& b, DType dtype, std::int64_t dim) const {
    return {b.data(), dtype, s.seq * kHeads * dim, kHeads * dim, dim};
  }
  attn::Input input(const DeviceBytes& b, DType dtype, std::int64_t dim) const {
    const attn::Output o = output(b, dtype, dim);
    return {o.data, o.dtype, o.batch_stride, o.token_stride, o.head_stride};
  }
  attn::Input elements(const DeviceBytes& b) const { return input(b, s.dtype, s.dim); }

  TimedShape s;
  std::int64_t rows;
  DeviceBytes q, k, v, dout, out, lse, delta;
  TestStream on;
};

/// A launch that is timed beside others: what it is called, and its share of the speed of the
/// launch `base` of its group that is asked for; 0: none.
struct Asked {
  const char* name;
  std::size_t base = 0;
  double goal = 0.0;
  int segments = 1;
  bool state = false;          ///< forward: resumes, and leaves a state
  bool deterministic = false;  ///< backward
  bool adds = false;           ///< backward: to dk and dv
  bool rounds = false;         ///< backward: dk and dv in the dtype of q
};

class Timed {
 public:
  Timed(const attn::Kernel& kernel, const Operands& o, bool backward, const Asked& asked)
      : asked_(asked),
        sequences_(o.s, kernel, backward, asked.segments),
        // As sessions have them.
        geometry_(sequences_.geometry, kernel,
                  asked.deterministic ? TileLists::single : TileLists::joined),
        workspace_(bytes_of(kernel.workspace_bytes(sequences_.geometry, backward, 1))) {
    context_.workspace = {workspace_.data(), workspace_.size()};
    context_.stream = o.on.stream;
    context_.deterministic = asked.deterministic;
    backward ? make_backward(kernel, o) : make_forward(kernel, o);
  }

  void launch() { launch_(); }
  void launch_timed() {
    times_.time(static_cast<cudaStream_t>(context_.stream), [this] { launch(); });
  }
  void note() { times_.note(); }
  const Asked& asked() const { return asked_; }
  const std::vector<float>& ms() const { return times_.ms(); }

 private:
  DeviceBytes& zeroed(std::int64_t bytes) {
    buffers_.push_back(std::make_unique<DeviceBytes>(bytes_of(bytes)));
    check_cuda(cudaMemset(buffers_.back()->data(), 0, bytes_of(bytes)), "cudaMemset");
    return *buffers_.back();
  }

  /// A state that is resumed again and again stays a mean of rows of V.
  void make_forward(const attn::Kernel& kernel, const Operands& o) {
    const DType dtype = o.s.dtype;
    const std::int64_t dim = o.s.dim;
    attn::ForwardParams p{.geometry = geometry_.geometry(),
                          .q = o.elements(o.q),
                          .k = o.elements(o.k),
                          .v = o.elements(o.v),
                          .out = o.output(o.out, dtype, dim),
                          .lse = o.output(o.lse, DType::f32, 1),
                          .state = {}};
    if (asked_.state) {
      p.lse = o.output(zeroed(o.rows * 4), DType::f32, 1);
      p.state = o.output(zeroed(o.rows * dim * 4), DType::f32, dim);
      p.resume = true;
      p.finish = false;
    }
    launch_ = [this, &kernel, p] { kernel.forward(p, context_); };
  }

  /// With the LSE of a forward: with others P would be what no P is.
  void make_backward(const attn::Kernel& kernel, const Operands& o) {
    const std::int64_t dim = o.s.dim;
    const DType dtype = asked_.rounds ? o.s.dtype : DType::f32;
    attn::BackwardParams p{.geometry = geometry_.geometry(),
                           .q = o.elements(o.q),
                           .k = o.elements(o.k),
                           .v = o.elements(o.v),
                           .dout = o.elements(o.dout),
                           .lse = o.input(o.lse, DType::f32, 1),
                           .delta = o.input(o.delta, DType::f32, 1),
                           .dq = o.output(zeroed(o.rows * dim * 4), DType::f32, dim),
                           .dk = o.output(zeroed(o.rows * dim * 4), dtype, dim),
                           .dv = o.output(zeroed(o.rows * dim * 4), dtype, dim),
                           .dq_assign = true,
                           .dkv_assign = !asked_.adds};
    launch_ = [this, &kernel, p] { kernel.backward(p, context_); };
  }

  Asked asked_;
  TimedSequences sequences_;
  DeviceGeometry geometry_;
  DeviceBytes workspace_;
  std::vector<std::unique_ptr<DeviceBytes>> buffers_;
  attn::LaunchContext context_;
  std::function<void()> launch_;
  LaunchTimes times_;
};

struct Quartiles {
  double low, middle, high;
};

Quartiles quartiles_of(std::vector<float> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](std::size_t quarter) {
    return static_cast<double>(values[(values.size() - 1) * quarter / 4]);
  };
  return {at(1), median(values), at(3)};
}

/// The base's time over this one's: of medians, and the quartiles of those of each round.
void print_line(const TimedShape& s, const Timed& timed, const Timed& base) {
  std::vector<float> ratios;
  for (std::size_t i = 0; i < timed.ms().size(); ++i) {
    ratios.push_back(base.ms()[i] / timed.ms()[i]);
  }
  const Quartiles ms = quartiles_of(timed.ms());
  const Quartiles by_round = quartiles_of(ratios);
  const Asked& asked = timed.asked();
  const double ratio = median(base.ms()) / ms.middle;
  std::printf("%-20s %-42s %8.3f ms, spread %.3f", name_of(s).c_str(), asked.name, ms.middle,
              (ms.high - ms.low) / ms.middle);
  if (&timed != &base) {
    std::printf("  ratio %.3f (%.3f to %.3f)", ratio, by_round.low, by_round.high);
  }
  if (asked.goal > 0.0) {
    std::printf("  goal %.2f%s", asked.goal, ratio >= asked.goal ? "" : " MISSED");
  }
  std::printf("\n");
  std::fflush(stdout);
}

void time_group(const attn::Kernel& kernel, const Operands& operands, bool backward,
                std::span<const Asked> group) {
  std::vector<std::unique_ptr<Timed>> timed;
  for (const Asked& asked : group) {
    timed.push_back(std::make_unique<Timed>(kernel, operands, backward, asked));
  }
  check_cuda(cudaDeviceSynchronize(), "operands");  // theirs is another stream
  time_interleaved(timed, kWarmUp, kRounds);
  for (const auto& t : timed) print_line(operands.s, *t, *timed[t->asked().base]);
}

const attn::Kernel& hopper() {
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name == "hopper") return *kernel;
  }
  throw InvalidArgument("no kernel hopper");
}

const Asked kForward{"forward"};
const Asked kSegments{.name = "forward over four segments", .goal = 0.98, .segments = 4};
const Asked kState{.name = "forward that resumes and leaves a state", .goal = 0.95, .state = true};
const Asked kBackward{"backward"};
const Asked kAdds{.name = "backward that adds to dk and dv", .goal = 0.95, .adds = true};
const Asked kRounded{.name = "backward that rounds dk and dv", .rounds = true};
const Asked kOrdered{.name = "backward, deterministic", .goal = 0.85, .deterministic = true};
const Asked kAddsToRounded{
    .name = "backward that adds, over that which rounds", .base = 2, .adds = true};

}  // namespace

void time_ratios(const std::string& only) {
  const attn::Kernel& kernel = hopper();
  if (const std::string why = kernel.refuses({DType::bf16, 128, 128, false, "cuda"}); !why.empty())
    throw Unsupported(why);
  std::printf(
      "hopper, 16 heads, random normal inputs, interleaved, median of %d; spread: of the "
      "quartiles, over the median;\nratio: speed over that of the plain launch, of medians "
      "(and the quartiles of rounds)\n",
      kRounds);
  for (const std::int64_t seq : {8192, 2048}) {
    for (const bool causal : {false, true}) {
      const TimedShape shape{DType::bf16, 128, causal, seq};
      if (name_of(shape).find(only) == std::string::npos) continue;
      const Operands operands(shape);
      std::vector<Asked> forward{kForward, kSegments};
      if (!causal) forward.push_back(kState);
      std::vector<Asked> backward{kBackward, kOrdered};
      if (seq == 8192) {
        backward.insert(backward.end(), {kRounded, kAdds, kAddsToRounded});
      } else {
        forward.resize(1);  // what the backward needs
      }
      time_group(kernel, operands, false, forward);
      time_group(kernel, operands, true, backward);
    }
  }
}

}  // namespace annulus::testing
