#pragma once

#include "attention/execute/cuda/device_launches.h"
#include "attention/execute/cuda/row_kernels.h"
#include "attention/execute/cuda/step_clock.h"
#include "attention/execute/item_ranges.h"
#include "attention/execute/memory.h"
#include "attention/execute/schedule.h"
#include "comm/device/device_link.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <annulus/plan.h>
#include <annulus/trace.h>

#include <cuda_runtime_api.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace annulus::attn {

enum class DeviceMode : std::uint8_t {
  overlapped,
  blocking,         ///< copies on the caller's stream too, to compare with
  transfers_alone,  ///< nothing computes: results are void
  compute_alone     ///< nothing moves: results are void
};

/// What a rank's calls report while they run.
struct DeviceReport {
  CallWords words{};
  std::uint32_t pass = 0;                   ///< what words.pass is set to
  const std::uint32_t* abort = nullptr;     ///< device memory; ends the waits of kernels
  std::array<std::uint32_t*, 2> awaited{};  ///< by lane: LinkStream::awaited
};

/// Plays one rank's plan on two streams: compute items on the caller's, copies on another
/// that starts and ends with it. Enqueues only: nothing waits on the host, nothing is allocated, so
/// a graph may capture a call.
class DeviceExecutor {
 public:
  /// On the current device. `copies`: the stream that copies go on, of every pass of the session;
  /// streams are dear, since those that wait hold hardware queues. References must outlive this.
  /// `sm_limit`: LaunchContext's.
  DeviceExecutor(const RankPlan& plan, const DeviceLaunches& launches, const comm::DeviceLink& link,
                 std::span<std::byte> workspace, const DeviceReport& report, cudaStream_t copies,
                 bool deterministic, int sm_limit);

  /// Makes what first launches make beside their code (load_kernels), which is to be there: as much
  /// as enqueue() costs the host, and what it takes to make a graph ready. Nothing runs.
  void rehearse(const Memory& memory);
  /// What that depends on, beside the kernel, the problem's dtype and dims, and how it is launched.
  std::vector<std::int64_t> kinds() const;

  /// `noted`: with events of clock() around each launch, which must be there. Not for a capture.
  void enqueue(const Memory& memory, cudaStream_t stream, DeviceMode mode, bool noted = false);

  /// Makes what notes need, once. On the current device.
  void make_clock();
  const StepClock& clock() const { return *clock_; }
  /// Of the last noted call, once it is over: seconds after clock().first().
  std::vector<ItemSample> samples() const;
  /// The same: how long the multiprocessors stood still for keys inside kernels, in the mean; none
  /// where no kernel counted it.
  std::optional<double> waited_s() const;
  bool waits_inside() const { return attn::waits_inside(schedule_); }

 private:
  template <typename Launch>
  void noting(bool noted, std::size_t step, const Launch& launch);
  void play(const Step& step, const Memory& memory, DeviceMode mode);
  void await_heads(const HeadSpan& heads, const comm::LinkStream& lane);
  RangeName range_of(const Step& step) const;
  void tell(const Step& step, const comm::LinkStream& lane);
  void compute(const Item& item, const Memory& memory);
  void prepare_together(std::size_t step, const Memory& memory, bool begins);
  const comm::LinkStream& on(Lane lane) const { return lanes_[static_cast<std::size_t>(lane)]; }

  const RankPlan& plan_;
  const DeviceLaunches& launches_;
  const comm::DeviceLink& link_;
  DeviceReport report_;
  std::vector<TransferTraits> traits_;
  Schedule schedule_;
  std::vector<std::int32_t> joined_;  ///< by step: joined_prepares
  ItemRanges ranges_;
  std::vector<std::int32_t> item_of_;  ///< by transfer
  LaunchContext context_;
  cudaStream_t copy_;
  bool alone_ = false;  ///< nothing is sent or received: a kernel waits for the one before it alone
  bool begins_with_attend_ = false;  ///< whose kernel does what launch_begin() does for others
  bool converts_early_ = false;
  CudaEvent begin_;
  std::vector<CudaEvent> events_;
  std::array<comm::LinkStream, 2> lanes_;
  DeviceBuffer waited_;             ///< a WaitCount, with clock_
  std::optional<StepClock> clock_;  ///< none until a call is to be noted
};

}  // namespace annulus::attn
