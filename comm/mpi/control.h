#pragma once

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace annulus::comm::mpi {

/// Small messages between all ranks. Parts of collectives go from each rank to each, not through an
/// MPI collective: whoever waits knows who is missing, a wait can end, and since a message is
/// received by its own size, ranks that disagree never write past a buffer.
class Control {
 public:
  using Bytes = std::vector<std::byte>;

  Control(int rank, int size);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

  /// Before anything is posted.
  void use(MPI_Comm comm) { comm_ = comm; }

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Sends this rank's part of a collective to all.
  void post_part(std::uint64_t round, std::span<const std::byte> part);
  void post_failure(std::string_view reason);

  /// Receives what has arrived, without waiting.
  void pump();

  /// Parts by rank, empty where not arrived.
  const std::vector<std::optional<Bytes>>& parts(std::uint64_t round);
  std::vector<int> missing(std::uint64_t round);
  void forget(std::uint64_t round) { rounds_.erase(round); }

  const std::vector<std::optional<std::string>>& failures() const { return failures_; }
  /// No failure report and no abort so far.
  bool sound() const { return first_failed_ < 0 && !aborted_.load(std::memory_order_relaxed); }
  /// All messages of this rank have left.
  bool sent() const { return outgoing_.empty() && incoming_.empty(); }

  /// From any thread or a signal handler.
  void abort() noexcept { aborted_.store(true, std::memory_order_relaxed); }
  bool aborted() const noexcept { return aborted_.load(std::memory_order_relaxed); }
  /// Throws CommError after an abort or a failure report of any rank.
  void check() const;

 private:
  /// A message on its way. MPI refers to the bytes until the request is complete.
  struct Flight {
    Bytes bytes;
    MPI_Request request = MPI_REQUEST_NULL;
    int source = 0;
    int tag = 0;
  };

  std::vector<std::optional<Bytes>>& round(std::uint64_t number);
  void post(int tag, const Bytes& message);
  bool receive_one();
  void deliver(Flight& flight);
  void note_failure(int rank, std::string_view reason);

  MPI_Comm comm_ = MPI_COMM_NULL;
  const int rank_;
  const int size_;
  std::list<Flight> outgoing_;
  std::list<Flight> incoming_;
  std::map<std::uint64_t, std::vector<std::optional<Bytes>>> rounds_;
  std::vector<std::optional<std::string>> failures_;
  int first_failed_ = -1;
  std::atomic<bool> aborted_{false};
};

}  // namespace annulus::comm::mpi
