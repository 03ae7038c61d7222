#include "launch/bench/mfu.h"

#include <fmt/format.h>

#include <array>

namespace annulus::launch {
namespace {

struct DataSheet {
  std::string_view name;  ///< the beginning of what the driver calls it
  double tflops;          ///< dense bf16, half of the figure with sparsity
};

// The first that fits counts.
constexpr std::array kDataSheets{DataSheet{"NVIDIA H200 NVL", 835.5},
                                 DataSheet{"NVIDIA H200", 989.4},
                                 DataSheet{"NVIDIA H100 PCIe", 756.4},
                                 DataSheet{"NVIDIA H100 NVL", 835.5},
                                 DataSheet{"NVIDIA H100 80GB HBM3", 989.4},
                                 DataSheet{"NVIDIA H800", 989.4},
                                 DataSheet{"NVIDIA GH200", 989.4},
                                 DataSheet{"NVIDIA A100", 312.0},
                                 DataSheet{"NVIDIA A800", 312.0}};

/// FLOPs of one multiprocessor in one clock, a multiplication and an addition being two: 4 matrix
/// units of 256 (8.0) or 512 (9.0) fused ones. 0: not known.
constexpr double flops_a_clock(const DeviceSize& size) {
  if (size.major == 8 && size.minor == 0) return 2048;
  if (size.major == 9 && size.minor == 0) return 4096;
  return 0;
}

}  // namespace

MatrixPeak matrix_peak(std::string_view device_name, const DeviceSize& size, DType dtype) {
  if (dtype != DType::bf16 && dtype != DType::f16) {
    return {.unavailable =
                fmt::format("the peak is that of 16-bit inputs, not of {}", name_of(dtype))};
  }
  for (const DataSheet& sheet : kDataSheets) {
    if (device_name.starts_with(sheet.name)) {
      return {.tflops = sheet.tflops, .source = fmt::format("data sheet of {}", sheet.name)};
    }
  }
  const double rate = flops_a_clock(size);
  if (rate == 0 || size.multiprocessors <= 0 || size.clock_hz <= 0) {
    return {.unavailable =
                fmt::format("the dense rate of {} (compute capability {}.{}) is not known",
                            device_name, size.major, size.minor)};
  }
  return {.tflops = size.multiprocessors * size.clock_hz * rate * 1e-12,
          .source = fmt::format("{} multiprocessors x {:.0f} MHz x {:.0f} FLOPs a clock",
                                size.multiprocessors, size.clock_hz * 1e-6, rate)};
}

MatrixPeak matrix_peak_of(int device, DType dtype) {
  if (device < 0) return {.unavailable = "the dense rate of this CPU is not known"};
  return matrix_peak(device_name(device), device_size(device), dtype);
}

std::optional<double> mfu(double tflops, const MatrixPeak& peak) {
  if (tflops <= 0 || peak.tflops <= 0) return std::nullopt;
  return tflops / peak.tflops;
}

}  // namespace annulus::launch
