#pragma once

#include "comm/communicator.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace annulus::moe {

/// What a message carries. Part of its tag, so that no two that are under way between two ranks
/// can meet.
enum class Cargo : std::uint8_t { counts, pairs, rows, tokens, returns, scalars };

/// "rows of expert 5", for messages.
std::string describe(Cargo cargo, std::int64_t expert);

/// The transfers of one call: started together, waited for together.
class Flights {
 public:
  /// `hash` keeps messages of different layers apart.
  Flights(comm::Communicator& communicator, std::uint32_t hash);

  /// Room for so many at once, so that starting allocates nothing here.
  void reserve(std::size_t flights) { flights_.reserve(flights); }

  /// What the transfers that follow are part of: "dispatch, round 0".
  void begin(const char* phase, std::int64_t round);

  /// `expert` is the receiver's (or, for returns, the sender's) local number.
  void send(int peer, Cargo cargo, std::int64_t expert, const void* data, std::int64_t bytes);
  void receive(int peer, Cargo cargo, std::int64_t expert, void* data, std::int64_t bytes);

  /// From inside a kernel: at most every 50 us.
  void poll();
  /// Until all are over. Throws Timeout that names the transfer. CommError passes.
  void wait();

  /// Where this rank stands, for messages.
  std::string present() const;
  double exposed_s() const { return exposed_s_; }
  void clear_exposed() { exposed_s_ = 0; }

 private:
  struct Flight {
    comm::Transport::Ticket ticket = 0;
    bool sends = false;
    int peer = 0;
    Cargo cargo = Cargo::counts;
    std::int64_t expert = 0;
    std::int64_t bytes = 0;
  };

  void start(bool sends, int peer, Cargo cargo, std::int64_t expert, void* data,
             std::int64_t bytes);
  bool any_done();
  std::string text(const Flight& flight) const;
  /// The receive that was started first says most about who is late.
  const Flight& awaited() const;

  comm::Communicator& communicator_;
  std::int32_t tag_base_;
  std::vector<Flight> flights_;
  const char* phase_ = "";
  std::int64_t round_ = 0;
  double exposed_s_ = 0;
  std::chrono::steady_clock::time_point last_poll_{};
};

}  // namespace annulus::moe
