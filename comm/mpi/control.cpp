#include "comm/mpi/control.h"

#include "comm/mpi/check.h"
#include "comm/wait_text.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace annulus::comm::mpi {

namespace {

constexpr int kPartTag = 1;
constexpr int kFailureTag = 2;
constexpr std::size_t kLongestPart = std::size_t{1} << 30;
constexpr std::size_t kLongestReason = 3000;  // sent eagerly: the receiver may never answer

}  // namespace

Control::Control(int rank, int size)
    : rank_(rank), size_(size), failures_(static_cast<std::size_t>(size)) {}

Control::~Control() {
  // MPI still refers to messages that did not leave, after a failure only: their memory stays.
  if (!outgoing_.empty()) new std::list<Flight>(std::move(outgoing_));
  if (!incoming_.empty()) new std::list<Flight>(std::move(incoming_));
}

std::vector<std::optional<Control::Bytes>>& Control::round(std::uint64_t number) {
  auto& parts = rounds_[number];
  parts.resize(static_cast<std::size_t>(size_));
  return parts;
}

const std::vector<std::optional<Control::Bytes>>& Control::parts(std::uint64_t number) {
  return round(number);
}

std::vector<int> Control::missing(std::uint64_t number) {
  std::vector<int> ranks;
  const auto& parts = round(number);
  for (int peer = 0; peer < size_; ++peer) {
    if (!parts[static_cast<std::size_t>(peer)]) ranks.push_back(peer);
  }
  return ranks;
}

void Control::post(int tag, const Bytes& message) {
  for (int step = 1; step < size_; ++step) {
    const int peer = (rank_ + step) % size_;  // not everyone to rank 0 first
    Flight& flight = outgoing_.emplace_back();
    flight.bytes = message;
    const int code = MPI_Isend(flight.bytes.data(), static_cast<int>(message.size()), MPI_BYTE,
                               peer, tag, comm_, &flight.request);
    if (code != MPI_SUCCESS) outgoing_.pop_back();
    // A report goes to those who can still be reached.
    if (tag != kFailureTag) mpi::check(code, "MPI_Isend");
  }
}

void Control::post_part(std::uint64_t number, std::span<const std::byte> part) {
  if (part.size() > kLongestPart) {
    throw InvalidArgument(fmt::format("{} bytes are too many for all_gather", part.size()));
  }
  round(number)[static_cast<std::size_t>(rank_)].emplace(part.begin(), part.end());
  Bytes message(sizeof number + part.size());
  std::memcpy(message.data(), &number, sizeof number);
  std::copy(part.begin(), part.end(), message.begin() + sizeof number);
  post(kPartTag, message);
}

void Control::post_failure(std::string_view reason) {
  if (failures_[static_cast<std::size_t>(rank_)]) return;
  note_failure(rank_, reason);
  const auto bytes = std::as_bytes(std::span(reason.substr(0, kLongestReason)));
  post(kFailureTag, Bytes(bytes.begin(), bytes.end()));
}

bool Control::receive_one() {
  int flag = 0;
  MPI_Message message = MPI_MESSAGE_NULL;
  MPI_Status status;
  mpi::check(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &flag, &message, &status),
             "MPI_Improbe");
  if (flag == 0) return false;
  int bytes = 0;
  MPI_Get_count(&status, MPI_BYTE, &bytes);
  Flight& flight = incoming_.emplace_back();
  flight.bytes.resize(static_cast<std::size_t>(bytes));
  flight.source = status.MPI_SOURCE;
  flight.tag = status.MPI_TAG;
  mpi::check(MPI_Imrecv(flight.bytes.data(), bytes, MPI_BYTE, &message, &flight.request),
             "MPI_Imrecv");
  return true;
}

void Control::pump() {
  if (size_ == 1) return;
  while (receive_one()) {
  }
  const auto complete = [](Flight& flight) {
    int flag = 0;
    mpi::check(MPI_Test(&flight.request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
    return flag != 0;
  };
  outgoing_.remove_if(complete);
  for (auto flight = incoming_.begin(); flight != incoming_.end();) {
    if (!complete(*flight)) {
      ++flight;
      continue;
    }
    deliver(*flight);
    flight = incoming_.erase(flight);
  }
}

void Control::deliver(Flight& flight) {
  if (flight.tag == kFailureTag) {
    note_failure(flight.source, std::string_view(reinterpret_cast<const char*>(flight.bytes.data()),
                                                 flight.bytes.size()));
    return;
  }
  std::uint64_t number = 0;
  std::memcpy(&number, flight.bytes.data(), sizeof number);
  flight.bytes.erase(flight.bytes.begin(), flight.bytes.begin() + sizeof number);
  round(number)[static_cast<std::size_t>(flight.source)] = std::move(flight.bytes);
}

void Control::note_failure(int rank, std::string_view reason) {
  failures_[static_cast<std::size_t>(rank)].emplace(reason);
  if (first_failed_ < 0) first_failed_ = rank;
}

void Control::check() const {
  if (aborted_.load(std::memory_order_relaxed)) throw CommError(abort_text(rank_, size_));
  if (first_failed_ < 0) return;
  throw CommError(peer_failure_text(rank_, size_, first_failed_,
                                    *failures_[static_cast<std::size_t>(first_failed_)]));
}

}  // namespace annulus::comm::mpi
