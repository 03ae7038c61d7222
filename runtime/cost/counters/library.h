#pragma once

#include <cuda.h>
#include <cupti_profiler_host.h>
#include <cupti_profiler_target.h>
#include <cupti_range_profiler.h>
#include <cupti_target.h>

#include <string>

namespace annulus::cost {

/// CUPTI's functions, found at run time, so that programs start where it is not installed.
struct CuptiLibrary {
  std::string missing;  ///< why it cannot be used; empty: all functions are there

#define ANNULUS_CUPTI_FUNCTIONS(each)                 \
  each(cuptiGetResultString);                         \
  each(cuptiProfilerInitialize);                      \
  each(cuptiDeviceGetChipName);                       \
  each(cuptiProfilerGetCounterAvailability);          \
  each(cuptiProfilerHostInitialize);                  \
  each(cuptiProfilerHostDeinitialize);                \
  each(cuptiProfilerHostConfigAddMetrics);            \
  each(cuptiProfilerHostGetConfigImageSize);          \
  each(cuptiProfilerHostGetConfigImage);              \
  each(cuptiProfilerHostGetNumOfPasses);              \
  each(cuptiProfilerHostEvaluateToGpuValues);         \
  each(cuptiRangeProfilerEnable);                     \
  each(cuptiRangeProfilerDisable);                    \
  each(cuptiRangeProfilerGetCounterDataSize);         \
  each(cuptiRangeProfilerCounterDataImageInitialize); \
  each(cuptiRangeProfilerSetConfig);                  \
  each(cuptiRangeProfilerStart);                      \
  each(cuptiRangeProfilerStop);                       \
  each(cuptiRangeProfilerPushRange);                  \
  each(cuptiRangeProfilerPopRange);                   \
  each(cuptiRangeProfilerDecodeData)
#define ANNULUS_DECLARE(name) decltype(&::name) name = nullptr
  ANNULUS_CUPTI_FUNCTIONS(ANNULUS_DECLARE);
#undef ANNULUS_DECLARE
};

/// Opened once a process and never closed: it leaves callbacks in the driver.
const CuptiLibrary& cupti();

/// A failed call: its name and what CUPTI says of it.
struct CuptiError {
  std::string text;
};
/// Throws CuptiError unless `status` is success.
void check_cupti(CUptiResult status, const char* call);

}  // namespace annulus::cost
