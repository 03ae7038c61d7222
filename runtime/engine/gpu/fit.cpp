#include <annulus/gpu.h>

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace annulus {

// seconds / copies = a + g * bytes. Both sides are divided by the measured time, so that a sample
// of small copies weighs as much as one of large ones, and the normal equations solved.
CopyModel fit_copy_model(std::span<const CopySample> samples) {
  double aa = 0;
  double ag = 0;
  double gg = 0;
  double a1 = 0;
  double g1 = 0;
  for (const CopySample& sample : samples) {
    if (sample.seconds <= 0 || sample.copies <= 0 || sample.bytes <= 0) {
      throw InvalidArgument(fmt::format("{} copies of {} bytes in {} s are no sample",
                                        sample.copies, sample.bytes, sample.seconds));
    }
    const double a = sample.copies / sample.seconds;
    const double g = a * static_cast<double>(sample.bytes);
    aa += a * a;
    ag += a * g;
    gg += g * g;
    a1 += a;
    g1 += g;
  }
  const double determinant = aa * gg - ag * ag;
  if (samples.size() < 2 || determinant <= 1e-12 * aa * gg) {
    throw InvalidArgument("a copy model needs samples of two sizes");
  }
  const double seconds_a_byte = (aa * g1 - ag * a1) / determinant;
  CopyModel model{.seconds_a_copy = (gg * a1 - ag * g1) / determinant};
  if (seconds_a_byte <= 0) throw InvalidArgument("larger copies took no longer than small ones");
  model.bytes_a_second = 1.0 / seconds_a_byte;
  for (const CopySample& sample : samples) {
    const double predicted =
        sample.copies * (model.seconds_a_copy + static_cast<double>(sample.bytes) * seconds_a_byte);
    model.worst_error = std::max(model.worst_error, std::abs(predicted / sample.seconds - 1.0));
  }
  return model;
}

}  // namespace annulus
