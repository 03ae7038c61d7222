#include "comm/frames/frame_communicator.h"

#include "comm/host_name.h"
#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <exception>

namespace annulus::comm::frames {

namespace {

constexpr double kReportGrace = 1.5;  // seconds
constexpr double kAbortGrace = 0.1;
constexpr double kPartingGrace = 2.0;

/// What a frame begins with; the payload follows.
struct Head {
  std::uint64_t bytes = 0;   ///< of the whole part, or of the reason
  std::uint64_t failed = 0;  ///< 1: the payload says why this rank fails
};
constexpr std::size_t kPayload = kFrameBytes - sizeof(Head);

Head head_of(std::span<const std::byte> frame) {
  Head head;
  std::memcpy(&head, frame.data(), sizeof head);
  return head;
}

/// Beside a mesh of GPUs there is nothing that moves the host's tensors.
class NoTransport final : public Transport {
 public:
  NoTransport(int rank, const std::atomic<bool>& aborted, int size)
      : rank_(rank), size_(size), aborted_(aborted) {}
  const char* name() const override { return "nccl"; }
  Ticket start(const TransferEnd& /*end*/) override {
    throw Unsupported(fmt::format(
        "rank {}: a mesh made from an ncclComm_t moves tensors of GPUs only: back end cuda",
        rank_));
  }
  bool done(Ticket /*ticket*/) override { return true; }
  void progress() override {
    if (aborted_.load(std::memory_order_relaxed)) throw CommError(abort_text(rank_, size_));
  }
  void cancel() noexcept override {}
  std::int64_t bytes_sent() const override { return 0; }

 private:
  const int rank_;
  const int size_;
  const std::atomic<bool>& aborted_;
};

}  // namespace

FrameCommunicator::FrameCommunicator(std::unique_ptr<Frames> frames, int device, double timeout_s)
    : frames_(std::move(frames)),
      device_(device),
      timeout_s_(timeout_s),
      host_(host_name()),
      transport_(std::make_unique<NoTransport>(frames_->rank(), aborted_, frames_->size())),
      mine_(kFrameBytes),
      all_(kFrameBytes * static_cast<std::size_t>(frames_->size())),
      failures_(static_cast<std::size_t>(frames_->size())) {}

FrameCommunicator::~FrameCommunicator() {
  if (healthy_ && !aborted() && std::uncaught_exceptions() == 0) {
    try {
      gather({}, {}, "mesh destruction", Deadline(std::min(timeout_s_, kPartingGrace)));
      return;
    } catch (...) {
      // the others are gone, or fail
    }
  }
  frames_->abandon();
}

std::span<std::byte> FrameCommunicator::frame_of(int rank) {
  return std::span(all_).subspan(static_cast<std::size_t>(rank) * kFrameBytes, kFrameBytes);
}

void FrameCommunicator::check() const {
  if (aborted()) throw CommError(abort_text(rank(), size()));
  if (first_failed_ >= 0) {
    throw CommError(peer_failure_text(rank(), size(), first_failed_,
                                      *failures_[static_cast<std::size_t>(first_failed_)]));
  }
  if (broken_) {
    throw CommError(
        fmt::format("rank {} of {}: an earlier wait was given up, the mesh is dead: rebuild it",
                    rank(), size()));
  }
}

void FrameCommunicator::exchange(std::string_view what, const Deadline& deadline,
                                 const std::function<void()>& check) {
  try {
    frames_->gather(mine_, all_, what, deadline, check);
  } catch (...) {
    broken_ = true;
    frames_->abandon();
    throw;
  }
  note_failures();
}

/// The same frames are seen by all: so all know the same reports after each of them.
void FrameCommunicator::note_failures() {
  for (int r = 0; r < size(); ++r) {
    const Head head = head_of(frame_of(r));
    auto& known = failures_[static_cast<std::size_t>(r)];
    if (head.failed == 0 || known) continue;
    const auto* text = reinterpret_cast<const char*>(frame_of(r).data() + sizeof head);
    known.emplace(text, std::min<std::size_t>(head.bytes, kPayload));
    if (first_failed_ < 0) first_failed_ = r;
  }
}

void FrameCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                                   std::string_view what) {
  if (all.size() != mine.size() * static_cast<std::size_t>(size())) {
    throw InvalidArgument(fmt::format("all_gather '{}': {} ranks of {} bytes do not fill {}", what,
                                      size(), mine.size(), all.size()));
  }
  check();
  try {
    gather(mine, all, what, Deadline(timeout_s_));
  } catch (...) {
    healthy_ = false;
    throw;
  }
}

void FrameCommunicator::gather(std::span<const std::byte> mine, std::span<std::byte> all,
                               std::string_view what, const Deadline& deadline) {
  std::size_t done = 0;
  do {
    const std::size_t now = std::min(mine.size() - done, kPayload);
    const Head head{.bytes = mine.size()};
    std::memcpy(mine_.data(), &head, sizeof head);
    std::copy_n(mine.begin() + static_cast<std::ptrdiff_t>(done), now, mine_.begin() + sizeof head);
    exchange(what, deadline, [this] {
      if (aborted()) check();
    });
    check();
    for (int r = 0; r < size(); ++r) {
      // In the first frame, on every rank: so all stay in the same frame.
      const std::uint64_t bytes = head_of(frame_of(r)).bytes;
      if (bytes == mine.size()) continue;
      throw CommError(fmt::format("'{}': rank {} brings {} bytes, rank {} brings {}", what, rank(),
                                  mine.size(), r, bytes));
    }
    for (int r = 0; r < size(); ++r) {
      const std::size_t at = static_cast<std::size_t>(r) * mine.size() + done;
      std::copy_n(frame_of(r).begin() + sizeof head, now,
                  all.begin() + static_cast<std::ptrdiff_t>(at));
    }
    done += now;
  } while (done < mine.size());
}

void FrameCommunicator::exchange_failures(std::string_view reason) {
  const std::string_view shown = reason.substr(0, kPayload);
  const Head head{.bytes = shown.size(), .failed = 1};
  const Deadline grace(aborted() ? kAbortGrace : kReportGrace);
  const auto heard = [](const std::optional<std::string>& text) { return text.has_value(); };
  do {
    std::memcpy(mine_.data(), &head, sizeof head);
    std::memcpy(mine_.data() + sizeof head, shown.data(), shown.size());
    // Others may be in a gather still: then this frame is its end, and they report in the next.
    exchange("failure reports", grace, [] {});
  } while (!std::all_of(failures_.begin(), failures_.end(), heard));
}

std::vector<std::optional<std::string>> FrameCommunicator::report_failure(
    std::string_view reason) noexcept {
  healthy_ = false;
  try {
    const bool known = failures_[static_cast<std::size_t>(rank())].has_value();
    if (!broken_ && !known) exchange_failures(reason);
  } catch (...) {
    // Not all answered: what was heard so far is the answer.
  }
  try {
    auto& mine = failures_[static_cast<std::size_t>(rank())];
    if (!mine) mine.emplace(reason);
    return failures_;
  } catch (...) {
    return {};  // no memory left for the texts
  }
}

}  // namespace annulus::comm::frames
