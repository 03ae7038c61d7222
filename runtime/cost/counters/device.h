#pragma once

#include "runtime/base/clock.h"

#include <cuda.h>

namespace annulus::cost {

/// Makes `device` current, with its primary context, and restores the thread's own.
class CurrentDevice {
 public:
  /// Throws DeviceError.
  explicit CurrentDevice(int device);
  CurrentDevice(const CurrentDevice&) = delete;
  CurrentDevice& operator=(const CurrentDevice&) = delete;
  ~CurrentDevice();

  /// Throws DeviceError where the driver does not say.
  CUcontext context() const;

 private:
  int before_ = 0;
};

/// Waits until what was given to `stream` is done. Throws DeviceError, and Timeout past the
/// deadline: then the work goes on and its memory must stay.
void await_stream(void* stream, const Deadline& deadline);

}  // namespace annulus::cost
