#pragma once

#include "comm/communicator.h"
#include "comm/mpi/control.h"
#include "comm/mpi/mpi_transport.h"
#include "comm/mpi/setup.h"
#include "comm/shared/shared_transport.h"
#include "runtime/base/clock.h"

#include <memory>

namespace annulus::comm::mpi {

class MpiCommunicator final : public Communicator {
 public:
  /// Collective; duplicates `parent`.
  MpiCommunicator(MPI_Comm parent, double timeout_s, bool shared_memory);
  /// Collective while all is well: frees the duplicates together. After a failure they are left,
  /// since MPI would wait for ranks that are gone.
  ~MpiCommunicator() override;

  int rank() const override { return control_.rank(); }
  int size() const override { return control_.size(); }
  std::string_view host() const override { return host_; }
  Transport& transport() override {
    if (shared_) return *shared_;
    return *transport_;
  }
  double timeout_s() const override { return timeout_s_; }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                  std::string_view what) override;
  void barrier(std::string_view what) override { all_gather({}, {}, what); }
  std::unique_ptr<Arena> make_arena(std::int64_t bytes) override;
  std::vector<std::optional<std::string>> report_failure(std::string_view reason) noexcept override;
  void abort() noexcept override { control_.abort(); }
  bool aborted() const noexcept override { return control_.aborted(); }

 private:
  void gather(std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what,
              const Deadline& deadline);
  void exchange_failures(std::string_view reason);
  bool part_together() noexcept;
  shared::Gather gatherer();

  const double timeout_s_;
  const std::string host_;
  Communicators comms_;
  Control control_;
  std::unique_ptr<MpiTransport> transport_;
  std::unique_ptr<shared::SharedTransport> shared_;  ///< null: all goes by messages
  std::uint64_t round_ = 0;
  bool healthy_ = true;
};

}  // namespace annulus::comm::mpi
