#pragma once

#include "comm/communicator.h"
#include "comm/frames/frames.h"

#include <atomic>
#include <memory>

namespace annulus::comm::frames {

/// A control plane of ranks that can do nothing but gather frames together: NCCL's. All ranks are
/// in the same frame always, so that whoever fails says so in the next one, which the others meet
/// in their next gather, or in their own report. Until then, or their deadline, they do not hear
/// it.
class FrameCommunicator final : public Communicator {
 public:
  /// `device`: the ranks' own GPU, where their tensors are.
  FrameCommunicator(std::unique_ptr<Frames> frames, int device, double timeout_s);
  /// Collective while all is well.
  ~FrameCommunicator() override;

  int rank() const override { return frames_->rank(); }
  int size() const override { return frames_->size(); }
  std::string_view host() const override { return host_; }
  Transport& transport() override { return *transport_; }
  int device() const override { return device_; }
  double timeout_s() const override { return timeout_s_; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::string_view what) override;
  void barrier(std::string_view what) override { all_gather({}, {}, what); }
  std::vector<std::optional<std::string>> report_failure(std::string_view reason) noexcept override;
  void abort() noexcept override { aborted_.store(true, std::memory_order_relaxed); }
  bool aborted() const noexcept override { return aborted_.load(std::memory_order_relaxed); }

 private:
  void gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what,
              const Deadline& deadline);
  void exchange(std::string_view what, const Deadline& deadline,
                const std::function<void()>& check);
  void exchange_failures(std::string_view reason);
  void note_failures();
  void check() const;
  std::span<std::byte> frame_of(int rank);

  std::unique_ptr<Frames> frames_;
  const int device_;
  const double timeout_s_;
  const std::string host_;
  std::unique_ptr<Transport> transport_;
  std::atomic<bool> aborted_{false};
  std::vector<std::byte> mine_;                       ///< a frame
  std::vector<std::byte> all_;                        ///< of each rank
  std::vector<std::optional<std::string>> failures_;  ///< by rank
  int first_failed_ = -1;
  bool broken_ = false;  ///< a frame was given up: no other follows
  bool healthy_ = true;  ///< no collective ended with an error
};

}  // namespace annulus::comm::frames
