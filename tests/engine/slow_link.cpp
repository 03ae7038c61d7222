#include "tests/engine/slow_link.h"

#include "comm/mesh.h"

#include <map>
#include <utility>

namespace annulus::testing {
namespace {

using Clock = std::chrono::steady_clock;

class SlowTransport final : public comm::Transport {
 public:
  SlowTransport(comm::Transport& fast, std::chrono::milliseconds least)
      : fast_(fast), least_(least) {}

  const char* name() const override { return fast_.name(); }

  Ticket start(const comm::TransferEnd& end) override {
    const Ticket ticket = fast_.start(end);
    earliest_[ticket] = Clock::now() + least_;
    return ticket;
  }

  bool done(Ticket ticket) override {
    if (Clock::now() < earliest_.at(ticket)) {
      fast_.progress();
      return false;
    }
    if (!fast_.done(ticket)) return false;
    earliest_.erase(ticket);
    return true;
  }

  void progress() override { fast_.progress(); }

  void cancel() noexcept override {
    earliest_.clear();
    fast_.cancel();
  }

  std::int64_t bytes_sent() const override { return fast_.bytes_sent(); }

 private:
  comm::Transport& fast_;
  std::chrono::milliseconds least_;
  std::map<Ticket, Clock::time_point> earliest_;
};

class SlowCommunicator final : public comm::Communicator {
 public:
  SlowCommunicator(std::unique_ptr<comm::Communicator> fast, std::chrono::milliseconds least)
      : fast_(std::move(fast)), transport_(fast_->transport(), least) {}

  int rank() const override { return fast_->rank(); }
  int size() const override { return fast_->size(); }
  std::string_view host() const override { return fast_->host(); }
  comm::Transport& transport() override { return transport_; }
  double timeout_s() const override { return fast_->timeout_s(); }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::string_view what) override {
    fast_->all_gather(mine, all, what);
  }
  void barrier(std::string_view what) override { fast_->barrier(what); }
  std::unique_ptr<comm::Arena> make_arena(std::int64_t bytes) override {
    return fast_->make_arena(bytes);
  }
  std::vector<std::optional<std::string>> report_failure(
      std::string_view reason) noexcept override {
    return fast_->report_failure(reason);
  }
  void abort() noexcept override { fast_->abort(); }
  bool aborted() const noexcept override { return fast_->aborted(); }

 private:
  std::unique_ptr<comm::Communicator> fast_;
  SlowTransport transport_;
};

}  // namespace

void slow_down(Mesh& mesh, std::chrono::milliseconds least) {
  auto& communicator = mesh.impl().communicator;
  communicator = std::make_unique<SlowCommunicator>(std::move(communicator), least);
}

}  // namespace annulus::testing
