// GPU counters against what is known, and the CUDA kernels against what they say they did:
//   counters_gpu        a line a check, exit status 1 if one fails, 77 where counters cannot be
//   read
#include "attention/kernels/cuda/table.h"
#include "runtime/cost/counters/product.h"
#include "tests/gpu/device_attention.h"

#include <annulus/cost.h>
#include <annulus/counters.h>

#include <cstdio>
#include <exception>
#include <string>
#include <string_view>

namespace annulus::testing {
namespace {

struct Tally {
  int checks = 0;
  int failed = 0;

  void check(bool holds, const std::string& what) {
    ++checks;
    failed += holds ? 0 : 1;
    std::printf("%-4s %s\n", holds ? "ok" : "FAIL", what.c_str());
    std::fflush(stdout);
  }
};

std::string text(std::int64_t value) { return std::to_string(value); }

std::string percent(std::int64_t a, std::int64_t b) {
  char out[32];
  std::snprintf(out, sizeof out, "%+.4f %%",
                100.0 * (static_cast<double>(a) / static_cast<double>(b) - 1.0));
  return out;
}

/// `a` is within `share` of `b`.
bool near(std::int64_t a, std::int64_t b, double share) {
  const double off = static_cast<double>(a - b);
  return off <= share * static_cast<double>(b) && -off <= share * static_cast<double>(b);
}

const attn::Kernel& kernel_of(std::string_view name) {
  for (const attn::Kernel* kernel : attn::cuda::kernels()) {
    if (kernel->name == name) return *kernel;
  }
  throw std::runtime_error("no such CUDA kernel");
}

void known_work(HardwareCounters& counters, DType dtype, Tally& tally) {
  const std::string type(name_of(dtype));
  tally.check(counters.passes() == (dtype == DType::bf16 ? 1 : 2),
              type + " takes " + text(counters.passes()) + " passes");
  cost::KnownProduct product(dtype);
  for (const int times : {1, 3}) {
    const HardwareReadings& read = counters.measure(nullptr, [&] {
      for (int i = 0; i < times; ++i) product.run();
    });
    const std::int64_t tensor = read.tensor_ops.value_or(-1);
    tally.check(
        tensor == times * cost::kProductFlops,
        type + " " + text(times) + " x 1024^3 reads " + text(tensor) + " " + read.unavailable);
    tally.check(read.mma_ops.value_or(-1) == tensor && read.wgmma_ops.value_or(0) == 0,
                "  all by mma.sync: " + text(read.mma_ops.value_or(-1)) + ", by wgmma " +
                    text(read.wgmma_ops.value_or(-1)));
  }
  tally.check(product.check().empty(), "  the product is right " + product.check());
}

void copied_bytes(HardwareCounters& counters, Tally& tally) {
  constexpr std::int64_t kBytes = std::int64_t{1} << 30;
  const DeviceBytes from(static_cast<std::size_t>(kBytes)), to(from.size());
  const HardwareReadings& read = counters.measure(nullptr, [&] {
    check_cuda(cudaMemcpyAsync(to.data(), from.data(), from.size(), cudaMemcpyDeviceToDevice),
               "copy");
  });
  tally.check(
      near(read.dram_read_bytes, kBytes, 0.06) && near(read.dram_written_bytes, kBytes, 0.06),
      "a copy of 1 GiB reads " + text(read.dram_read_bytes) + " (" +
          percent(read.dram_read_bytes, kBytes) + ") and writes " + text(read.dram_written_bytes) +
          " (" + percent(read.dram_written_bytes, kBytes) + ")");
}

struct Counted {
  std::int64_t executed = 0;
  HardwareReadings read;
};

template <typename Fn>
Counted count(HardwareCounters& counters, const DeviceAttention& attention, Fn&& fn) {
  fn();
  Counted counted{.executed = attention.executed_flops(), .read = {}};
  const std::int64_t again = attention.executed_flops();
  if (again != 0) throw std::runtime_error("the FLOP counter was not cleared");
  counted.read = counters.measure(nullptr, fn);
  attention.executed_flops();
  return counted;
}

std::string name_of(const Shape& s) {
  return std::string(name_of(s.dtype)) + " D " + text(s.head_dim) + " S " + text(s.seq) +
         (s.causal ? " causal" : " full");
}

/// Tensor cores do the tiles that the kernel says it visits, those at the edge padded.
void tensor_kernels(HardwareCounters& counters, const Shape& shape, Tally& tally) {
  const DeviceAttention attention(shape, kernel_of("flash2"));
  const auto check = [&](const char* pass, const Counted& c, std::int64_t each) {
    const std::int64_t seen = c.read.tensor_ops.value_or(-1);
    const std::string line = name_of(shape) + " " + pass + ": executed " + text(c.executed) +
                             " hardware " + text(seen) + " " + percent(seen, c.executed) +
                             ", DRAM " + text(c.read.dram_bytes()) + " B " + c.read.unavailable;
    tally.check(c.executed == each * attention.tile_pairs() &&
                    near(seen, each * attention.padded_pairs(), 0.01),
                line);
  };
  const std::int64_t dim = shape.head_dim;
  check("forward ", count(counters, attention, [&] { attention.forward(); }), 4 * dim);
  check("backward", count(counters, attention, [&] { attention.backward(); }), 10 * dim);
}

/// The Hopper forward: every product is a warpgroup's, of whole tiles. `whole`: the length is a
/// multiple of the tile, so that hardware does what the kernel says, no more.
void hopper_forward(HardwareCounters& counters, std::int64_t seq, bool whole, Tally& tally) {
  const attn::Kernel& hopper = kernel_of("hopper");
  for (const bool causal : {false, true}) {
    const Shape shape{.head_dim = 128, .seq = seq, .causal = causal};
    if (const std::string why = hopper.refuses(shape.query()); !why.empty()) {
      std::printf("skipped: hopper %s\n", why.c_str());
      return;
    }
    const DeviceAttention attention(shape, hopper);
    const Counted c = count(counters, attention, [&] { attention.forward(); });
    const std::int64_t seen = c.read.tensor_ops.value_or(-1);
    const std::int64_t padded = 4 * shape.head_dim * attention.padded_pairs();
    const std::string line = "hopper " + name_of(shape) + " forward : executed " +
                             text(c.executed) + " hardware " + text(seen) + " " +
                             percent(seen, c.executed) + ", by wgmma " +
                             text(c.read.wgmma_ops.value_or(-1)) + ", DRAM " +
                             text(c.read.dram_bytes()) + " B " + c.read.unavailable;
    tally.check(c.executed == 4 * shape.head_dim * attention.tile_pairs() &&
                    near(seen, whole ? c.executed : padded, 0.01) && near(seen, padded, 0.01) &&
                    c.read.wgmma_ops.value_or(-1) == seen,
                line);
  }
}

CostReport report_of(const Shape& shape, const Counted& counted) {
  CostRequest request;
  request.heads = request.heads_kv = shape.heads;
  request.head_dim = request.head_dim_v = shape.head_dim;
  request.seq = shape.seq;
  CostReport report = price(request);
  report.executed.flops_rank_layer = {counted.executed};
  report.hardware.flops_rank_layer = {counted.read.tensor_ops.value_or(-1)};
  report.hardware.hbm_bytes_rank_layer = {counted.read.dram_bytes()};
  return report;
}

/// Corrected and exact are of the problem, so of every kernel; executed is of its tiles; and the
/// kernels that keep scores on the chip move fewer bytes than the one that does not.
void claim_of_kernels(HardwareCounters& counters, Tally& tally) {
  const Shape shape{.causal = true};
  std::int64_t naive_bytes = 0;
  for (const char* name : {"naive", "flash1", "flash2"}) {
    const DeviceAttention attention(shape, kernel_of(name));
    const Counted c = count(counters, attention, [&] { attention.forward(); });
    const CostReport report = report_of(shape, c);
    const std::int64_t exact = report.exact.masked_flops_group_layer;
    if (naive_bytes == 0) naive_bytes = c.read.dram_bytes();
    const std::string line =
        std::string(name) + ": corrected " + text(report.corrected.attention_macs_rank_model) +
        " MAC, exact " + text(exact) + ", executed " + text(c.executed) + " FLOP, read " +
        text(c.read.dram_read_bytes) + " wrote " + text(c.read.dram_written_bytes) +
        " B, naive over it " +
        std::to_string(static_cast<double>(naive_bytes) / static_cast<double>(c.read.dram_bytes()));
    tally.check(exact == 4 * attention.exact_pairs() * shape.head_dim &&
                    c.executed == 4 * attention.tile_pairs() * shape.head_dim,
                line);
    tally.check(name == std::string_view("naive") || c.read.dram_bytes() < naive_bytes,
                "  moves no more than naive");
    for (const CostCheck& check : self_checks(report)) {
      tally.check(check.outcome != CostCheck::Outcome::failed,
                  "  " + check.claim + ": " + std::string(annulus::name_of(check.outcome)) + " " +
                      check.detail);
    }
  }
}

int run() {
  Tally tally;
  for (const DType dtype : {DType::bf16, DType::f16}) {
    HardwareCounters counters(0, dtype);
    if (!counters.unavailable().empty()) {
      std::printf("skipped: %s\n", counters.unavailable().c_str());
      return 77;
    }
    std::printf("%s\n", counters.source().c_str());
    known_work(counters, dtype, tally);
    for (const std::int64_t dim : {128, 64}) {
      for (const bool causal : {false, true}) {
        for (const std::int64_t seq : {4096, 1000}) {
          tensor_kernels(counters, {.dtype = dtype, .head_dim = dim, .seq = seq, .causal = causal},
                         tally);
        }
      }
    }
    if (dtype != DType::bf16) continue;
    hopper_forward(counters, 4096, true, tally);   // steps of 128 keys
    hopper_forward(counters, 10240, true, tally);  // of 160
    hopper_forward(counters, 1000, false, tally);
    copied_bytes(counters, tally);
    claim_of_kernels(counters, tally);
  }
  HardwareCounters single(0, DType::f32);
  const Shape shape{.dtype = DType::f32, .seq = 1024};
  const DeviceAttention attention(shape, kernel_of("flash2"));
  const HardwareReadings& read = single.measure(nullptr, [&] { attention.forward(); });
  tally.check(!read.tensor_ops && read.unavailable.empty() && read.dram_bytes() > 0,
              "f32 has bytes (" + text(read.dram_bytes()) + ") and no tensor operations");
  std::printf("%d checks, %d failed\n", tally.checks, tally.failed);
  return tally.failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace annulus::testing

int main() {
  int devices = 0;
  const cudaError_t status = cudaGetDeviceCount(&devices);
  if (status != cudaSuccess || devices == 0) {
    std::printf("skipped: no CUDA device (%s)\n", cudaGetErrorString(status));
    return 77;
  }
  try {
    return annulus::testing::run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
