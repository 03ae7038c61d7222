#include <annulus/counters.h>

#include "runtime/cost/counters/device.h"
#include "runtime/cost/counters/product.h"
#include "runtime/cost/counters/profiler.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <cmath>
#include <mutex>
#include <optional>
#include <string_view>

namespace annulus {
namespace {

/// CUPTI keeps one profiler a process in order, whichever device it looks at.
std::mutex& cupti_mutex() {
  static std::mutex mutex;
  return mutex;
}

struct MetricNames {
  std::string tensor, wgmma, mma;
};

/// f32 and f64 use no tensor core: bf16's counters then only prove that counting works.
MetricNames metrics_of(DType dtype) {
  const std::string path = "sm__ops_path_tensor_";
  if (dtype == DType::f16) {
    return {path + "src_fp16.sum", path + "op_hgmma_src_fp16.sum", path + "op_hmma_src_fp16.sum"};
  }
  return {path + "src_bf16_dst_fp32.sum", path + "op_hgmma_src_bf16_dst_fp32.sum",
          path + "op_hmma_src_bf16_dst_fp32.sum"};
}

constexpr const char* kRead = "dram__bytes_read.sum";
constexpr const char* kWritten = "dram__bytes_write.sum";

bool on_tensor_cores(DType dtype) { return dtype == DType::bf16 || dtype == DType::f16; }

}  // namespace

struct HardwareCounters::Impl {
  Impl(int ordinal, DType type, double limit_s)
      : device(ordinal), dtype(type), timeout_s(limit_s), metrics(metrics_of(type)) {
    guarded([&] {
      if (!cost::cupti().missing.empty()) throw cost::CuptiError{cost::cupti().missing};
      const cost::CurrentDevice current(device);
      profiler.emplace(current.context(), device,
                       std::vector<std::string>{metrics.tensor, kRead, kWritten},
                       std::vector<std::string>{metrics.wgmma, metrics.mma});
      verify();
    });
    if (!unavailable.empty()) profiler.reset();
    if (!profiler) return;
    for (const std::string& metric : profiler->metrics()) {
      source += (source.empty() ? "CUPTI: " : ", ") + metric;
    }
  }

  /// Whatever fails becomes the reason; a deadline that passed is thrown too, once made.
  template <typename Fn>
  void guarded(Fn&& fn) {
    const std::scoped_lock lock(cupti_mutex());
    try {
      fn();
    } catch (const cost::CuptiError& error) {
      unavailable = error.text;
    } catch (const DeviceError& error) {
      unavailable = error.what();
    } catch (const Timeout& error) {
      unavailable = error.what();
      if (profiler && !source.empty()) throw;  // not from the constructor
    }
    if (unavailable.empty()) return;
    readings = {};
    readings.unavailable = unavailable;
  }

  /// The counters must read what the known product did, to the last one.
  void verify() {
    cost::KnownProduct product(dtype == DType::f16 ? DType::f16 : DType::bf16);
    for (int i = 0; i < profiler->passes(); ++i) {
      cost::await_stream(nullptr, Deadline(timeout_s));
      profiler->begin(i == 0);
      product.run();
      cost::await_stream(nullptr, Deadline(timeout_s));
      profiler->end();
    }
    const std::string wrong = product.check();
    if (!wrong.empty()) throw cost::CuptiError{wrong};
    const double counted = value_of(metrics.tensor).value_or(-1.0);
    if (counted != static_cast<double>(cost::kProductFlops)) {
      throw cost::CuptiError{fmt::format("{} read {:.0f} for a product of {} FLOP", metrics.tensor,
                                         counted, cost::kProductFlops)};
    }
  }

  std::optional<double> value_of(std::string_view metric) const {
    const std::vector<double> values = profiler->values();
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (profiler->metrics()[i] == metric) return values[i];
    }
    return std::nullopt;
  }

  std::optional<std::int64_t> count_of(std::string_view metric) const {
    const std::optional<double> value = value_of(metric);
    if (!value) return std::nullopt;
    if (!std::isfinite(*value) || *value < 0) {
      throw cost::CuptiError{fmt::format("{} read {}", metric, *value)};
    }
    return std::llround(*value);
  }

  void read() {
    HardwareReadings read;
    if (on_tensor_cores(dtype)) {
      read.tensor_ops = count_of(metrics.tensor);
      read.wgmma_ops = count_of(metrics.wgmma);
      read.mma_ops = count_of(metrics.mma);
    }
    read.dram_read_bytes = count_of(kRead).value_or(0);
    read.dram_written_bytes = count_of(kWritten).value_or(0);
    read.unavailable.clear();
    readings = std::move(read);
  }

  int device;
  DType dtype;
  double timeout_s;
  MetricNames metrics;
  std::optional<cost::RangeProfiler> profiler;
  std::string unavailable, source;
  HardwareReadings readings;
  int pass = 0;
};

HardwareCounters::HardwareCounters(int device, DType dtype, double timeout_s)
    : impl_(std::make_unique<Impl>(device, dtype, timeout_s)) {}
HardwareCounters::HardwareCounters(HardwareCounters&&) noexcept = default;
HardwareCounters& HardwareCounters::operator=(HardwareCounters&&) noexcept = default;
HardwareCounters::~HardwareCounters() = default;

const std::string& HardwareCounters::unavailable() const { return impl_->unavailable; }
const std::string& HardwareCounters::source() const { return impl_->source; }
const HardwareReadings& HardwareCounters::readings() const { return impl_->readings; }
int HardwareCounters::passes() const { return impl_->profiler ? impl_->profiler->passes() : 1; }

void HardwareCounters::begin() {
  Impl& self = *impl_;
  if (!self.unavailable.empty()) return;
  self.guarded([&] {
    const cost::CurrentDevice current(self.device);
    self.profiler->begin(self.pass == 0);
  });
}

void HardwareCounters::end(void* stream) {
  Impl& self = *impl_;
  if (!self.unavailable.empty()) return;
  self.guarded([&] {
    const cost::CurrentDevice current(self.device);
    cost::await_stream(stream, Deadline(self.timeout_s));
    self.pass = self.profiler->end() ? 0 : self.pass + 1;
    if (self.pass == 0) self.read();
  });
}

}  // namespace annulus
