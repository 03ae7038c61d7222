#pragma once

#include <annulus/export.h>
#include <annulus/tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace annulus {

/// What a GPU's performance counters said between begin() and end().
struct HardwareReadings {
  /// FLOPs (2 a multiply-add) that tensor cores did on operands of the dtype; none for f32 and f64,
  /// whose kernels use no tensor core.
  std::optional<std::int64_t> tensor_ops;
  std::optional<std::int64_t> wgmma_ops;  ///< of these, by warp-group products (sm_90)
  std::optional<std::int64_t> mma_ops;    ///< of these, by mma.sync
  std::int64_t dram_read_bytes = 0;
  std::int64_t dram_written_bytes = 0;
  /// Why there are none; empty: they are there. A reading is never replaced by an estimate.
  std::string unavailable = "nothing was measured";

  std::int64_t dram_bytes() const { return dram_read_bytes + dram_written_bytes; }
};

/// Counts what one GPU does, by profiling ranges of its primary context. Counters are believed only
/// after they read exactly 2^31 for a 1024 x 1024 x 1024 product of the library's own, which the
/// constructor runs. The profiling library is opened then; programs start without it.
///
/// One call at a time. Work that other streams or threads give to the GPU meanwhile is counted too.
/// Launches are slower while an object lives: time without one.
class ANNULUS_API HardwareCounters {
 public:
  /// Never throws for what a machine lacks: see unavailable(). `device` is CUDA's ordinal. Leaves
  /// the calling thread's current device as it was. Waits at most `timeout_s` for the device.
  HardwareCounters(int device, DType dtype, double timeout_s = 10.0);
  HardwareCounters(HardwareCounters&&) noexcept;
  HardwareCounters& operator=(HardwareCounters&&) noexcept;
  ~HardwareCounters();

  /// Why nothing can be read here; empty: begin() and end() count.
  const std::string& unavailable() const;
  /// The counters' names, as the vendor has them; empty where unavailable.
  const std::string& source() const;
  /// How often the same work must run, each time between begin() and end(), for one reading: the
  /// GPU has not all counters at once. 1 for bf16; 2 for f16 on Hopper.
  int passes() const;

  void begin();
  /// Awaits `stream` (cudaStream_t; null: the default one), which the work was given to or joined
  /// with. Throws Timeout where the device did not answer in time. After the last pass readings()
  /// holds what was counted, or why not.
  void end(void* stream = nullptr);
  const HardwareReadings& readings() const;

  /// All passes of fn(), which enqueues the work on `stream`.
  template <typename Fn>
  const HardwareReadings& measure(void* stream, Fn&& fn) {
    for (int pass = 0; pass < passes(); ++pass) {
      begin();
      fn();
      end(stream);
    }
    return readings();
  }

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace annulus
