#include "comm/communicator.h"
#include "comm/host_name.h"
#include "comm/local/board.h"
#include "comm/local/local_transport.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <atomic>

namespace annulus::comm {

namespace {

constexpr double kReportGrace = 1.5;  // seconds
constexpr double kAbortGrace = 0.1;

class LocalCommunicator final : public Communicator {
 public:
  LocalCommunicator(std::shared_ptr<local::Board> board, int rank, double timeout_s)
      : board_(std::move(board)),
        rank_(rank),
        timeout_s_(timeout_s),
        host_(host_name()),
        transport_(board_, rank, aborted_) {}

  int rank() const override { return rank_; }
  int size() const override { return board_->size(); }
  std::string_view host() const override { return host_; }
  Transport& transport() override { return transport_; }
  double timeout_s() const override { return timeout_s_; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::string_view what) override {
    if (all.size() != mine.size() * static_cast<std::size_t>(size())) {
      throw InvalidArgument(fmt::format("all_gather '{}': {} ranks of {} bytes do not fill {}",
                                        what, size(), mine.size(), all.size()));
    }
    transport_.check();
    board_->gather(round_++, rank_, mine, all, what, Deadline(timeout_s_),
                   [this] { transport_.check(); });
  }

  void barrier(std::string_view what) override { all_gather({}, {}, what); }

  std::vector<std::optional<std::string>> report_failure(
      std::string_view reason) noexcept override {
    try {
      return board_->report(rank_, reason, Deadline(aborted() ? kAbortGrace : kReportGrace));
    } catch (...) {
      return {};  // no memory left for the texts
    }
  }

  void abort() noexcept override { aborted_.store(true, std::memory_order_relaxed); }
  bool aborted() const noexcept override { return aborted_.load(std::memory_order_relaxed); }

 private:
  std::shared_ptr<local::Board> board_;
  const int rank_;
  const double timeout_s_;
  const std::string host_;
  std::atomic<bool> aborted_{false};
  local::LocalTransport transport_;
  std::uint64_t round_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_local_communicators(int size, double timeout_s) {
  if (size < 1) throw InvalidArgument(fmt::format("a world of {} ranks", size));
  const auto board = std::make_shared<local::Board>(size);
  std::vector<std::unique_ptr<Communicator>> communicators;
  for (int rank = 0; rank < size; ++rank) {
    communicators.push_back(std::make_unique<LocalCommunicator>(board, rank, timeout_s));
  }
  return communicators;
}

}  // namespace annulus::comm
