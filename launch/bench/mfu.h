#pragma once

#include <annulus/annulus.h>

#include <optional>
#include <string>
#include <string_view>

namespace annulus::launch {

/// The dense rate of a rank's matrix units for 16-bit inputs, to set what was reached against.
struct MatrixPeak {
  double tflops = 0;          ///< 0: unknown
  std::string source{};       ///< how it is known
  std::string unavailable{};  ///< why it is not
};

/// Pure. By the GPU's name, as its data sheet says; else from its size and highest clock, where the
/// architecture's rate is known. Only for f16 and bf16: other types take other paths.
MatrixPeak matrix_peak(std::string_view device_name, const DeviceSize& size, DType dtype);

/// On the CPU, or of that GPU.
MatrixPeak matrix_peak_of(int device, DType dtype);

/// Model FLOPs utilisation: `tflops` over the peak; none where one of them is unknown.
std::optional<double> mfu(double tflops, const MatrixPeak& peak);

}  // namespace annulus::launch
