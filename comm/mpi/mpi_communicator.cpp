#include "comm/mpi/mpi_communicator.h"

#include "comm/backoff.h"
#include "comm/cores.h"
#include "comm/host_name.h"
#include "comm/mpi/check.h"
#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <exception>

namespace annulus::comm {

namespace mpi {

namespace {

constexpr double kReportGrace = 1.5;   // seconds
constexpr double kAbortGrace = 0.1;    // mpirun kills a second after its SIGTERM
constexpr double kPartingGrace = 2.0;  // seconds

int rank_in(MPI_Comm comm) {
  int rank = 0;
  check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
  return rank;
}

int size_of(MPI_Comm comm) {
  int size = 0;
  check(MPI_Comm_size(comm, &size), "MPI_Comm_size");
  return size;
}

}  // namespace

MpiCommunicator::MpiCommunicator(MPI_Comm parent, double timeout_s, bool shared_memory)
    : timeout_s_(timeout_s), host_(host_name()), control_(rank_in(parent), size_of(parent)) {
  const Deadline deadline(timeout_s);
  comms_ = duplicate(parent, deadline);
  control_.use(comms_.control);
  const Placement mine = placement(host_);
  std::vector<Placement> all(static_cast<std::size_t>(size()));
  gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)), "mesh set-up",
         deadline);
  const bool is_crowded = crowded(all, rank());
  transport_ = std::make_unique<MpiTransport>(comms_.payload, control_, is_crowded);
  if (!shared_memory) return;
  std::vector<std::uint64_t> hosts;
  for (const Placement& placement : all) hosts.push_back(placement.host);
  auto group = shared::HostGroup::make(rank(), hosts, gatherer());
  if (!group) return;
  shared_ =
      std::make_unique<shared::SharedTransport>(rank(), std::move(*group), *transport_, is_crowded);
}

shared::Gather MpiCommunicator::gatherer() {
  return [this](std::span<const std::byte> mine, std::span<std::byte> all, std::string_view what) {
    all_gather(mine, all, what);
  };
}

std::unique_ptr<Arena> MpiCommunicator::make_arena(std::int64_t bytes) {
  if (!shared_) return Communicator::make_arena(bytes);
  return shared_->make_arena(bytes, gatherer());
}

void MpiCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> all,
                                 std::string_view what) {
  if (all.size() != mine.size() * static_cast<std::size_t>(size())) {
    throw InvalidArgument(fmt::format("all_gather '{}': {} ranks of {} bytes do not fill {}", what,
                                      size(), mine.size(), all.size()));
  }
  control_.pump();
  control_.check();
  gather(mine, all, what, Deadline(timeout_s_));
}

void MpiCommunicator::gather(std::span<const std::byte> mine, std::span<std::byte> all,
                             std::string_view what, const Deadline& deadline) {
  const std::uint64_t round = round_++;
  control_.post_part(round, mine);
  Backoff backoff;
  for (;; backoff.idle()) {
    control_.pump();  // before the clock: a rank that was stopped finds its messages first
    if (control_.missing(round).empty()) break;
    control_.check();
    if (deadline.expired()) {
      healthy_ = false;
      throw Timeout(
          timeout_text(rank(), size(), what, deadline.elapsed_s(), control_.missing(round)));
    }
  }
  std::byte* out = all.data();
  for (const auto& part : control_.parts(round)) {
    if (part->size() != mine.size()) {
      healthy_ = false;
      throw CommError(fmt::format("'{}': rank {} brings {} bytes, another rank brings {}", what,
                                  rank(), mine.size(), part->size()));
    }
    out = std::copy(part->begin(), part->end(), out);
  }
  control_.forget(round);
}

void MpiCommunicator::exchange_failures(std::string_view reason) {
  control_.post_failure(reason);
  Backoff backoff;
  const auto heard = [](const std::optional<std::string>& text) { return text.has_value(); };
  for (const Deadline grace(aborted() ? kAbortGrace : kReportGrace); !grace.expired();
       backoff.idle()) {
    control_.pump();
    const auto& texts = control_.failures();
    if (std::all_of(texts.begin(), texts.end(), heard)) return;
  }
}

std::vector<std::optional<std::string>> MpiCommunicator::report_failure(
    std::string_view reason) noexcept {
  healthy_ = false;
  try {
    if (usable()) exchange_failures(reason);
  } catch (...) {
    // The network below is gone as well: what was heard so far is the answer.
  }
  try {
    return control_.failures();
  } catch (...) {
    return {};  // no memory left for the texts
  }
}

bool MpiCommunicator::part_together() noexcept {
  try {
    // Later traffic must not reach a communicator that takes over a freed one's number.
    const Deadline deadline(std::min(timeout_s_, kPartingGrace));
    gather({}, {}, "mesh destruction", deadline);
    Backoff backoff;
    for (; !control_.sent() && !deadline.expired(); backoff.idle()) control_.pump();
    return control_.sent();
  } catch (...) {
    return false;
  }
}

MpiCommunicator::~MpiCommunicator() {
  if (!usable()) return;
  const bool sound = healthy_ && control_.sound() && transport_ != nullptr && transport_->idle() &&
                     (shared_ == nullptr || shared_->idle()) && std::uncaught_exceptions() == 0;
  if (!sound || !part_together()) return;
  MPI_Comm_free(&comms_.payload);
  MPI_Comm_free(&comms_.control);
}

}  // namespace mpi

bool mpi_built() { return true; }

std::unique_ptr<Communicator> make_mpi_communicator(int fortran_communicator, double timeout_s,
                                                    bool shared_memory) {
  return std::make_unique<mpi::MpiCommunicator>(mpi::from_fortran(fortran_communicator), timeout_s,
                                                shared_memory);
}

}  // namespace annulus::comm
