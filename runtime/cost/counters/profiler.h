#pragma once

#include "runtime/cost/counters/library.h"

#include <cstdint>
#include <string>
#include <vector>

namespace annulus::cost {

/// One set of metrics of one context, read over ranges that the caller sets. Everything may throw
/// CuptiError.
class RangeProfiler {
 public:
  /// `needed` must exist on this chip; `wanted` are read too where all of them do.
  RangeProfiler(CUcontext context, int device, const std::vector<std::string>& needed,
                const std::vector<std::string>& wanted);
  RangeProfiler(const RangeProfiler&) = delete;
  RangeProfiler& operator=(const RangeProfiler&) = delete;
  ~RangeProfiler();

  int passes() const { return passes_; }
  const std::vector<std::string>& metrics() const { return metrics_; }

  /// Between them lies one pass of the work; the first pass forgets the last reading.
  void begin(bool first_pass);
  /// True: all passes were made, values() holds.
  bool end();
  /// In the order of metrics().
  std::vector<double> values() const;

 private:
  void open_host(const std::string& chip, const std::vector<std::string>& metrics);
  void configure();
  void start_over();
  std::vector<const char*> names() const;
  void close() noexcept;
  void close_host() noexcept;

  CUcontext context_ = nullptr;
  CUpti_Profiler_Host_Object* host_ = nullptr;
  CUpti_RangeProfiler_Object* profiler_ = nullptr;
  std::vector<std::string> metrics_;
  std::vector<std::uint8_t> availability_, config_, data_;
  int passes_ = 1;
};

}  // namespace annulus::cost
