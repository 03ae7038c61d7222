#include "moe/flights.h"

#include "comm/backoff.h"
#include "runtime/base/clock.h"

#include <annulus/error.h>

#include <fmt/format.h>

#include <algorithm>

namespace annulus::moe {
namespace {

// A tag is 15 bits of the layer's hash, then 3 of cargo and 13 of expert; plans of attention divide
// theirs alike (attention/execute/executor.cpp).
constexpr int kExpertBits = 13;
constexpr int kTagBits = 16;
constexpr std::uint32_t kHashBits = 0x7fff;
constexpr auto kPollGap = std::chrono::microseconds(50);

}  // namespace

std::string describe(Cargo cargo, std::int64_t expert) {
  switch (cargo) {
    case Cargo::counts:
      return "counts of rows";
    case Cargo::pairs:
      return "weights of rows";
    case Cargo::rows:
      return fmt::format("rows of local expert {}", expert);
    case Cargo::tokens:
      return "rows of tokens";
    case Cargo::returns:
      return fmt::format("results of local expert {}", expert);
    case Cargo::scalars:
      return "gradients of weights";
  }
  return {};
}

Flights::Flights(comm::Communicator& communicator, std::uint32_t hash)
    : communicator_(communicator),
      tag_base_(static_cast<std::int32_t>((hash & kHashBits) << kTagBits)) {}

void Flights::begin(const char* phase, std::int64_t round) {
  phase_ = phase;
  round_ = round;
}

void Flights::send(int peer, Cargo cargo, std::int64_t expert, const void* data,
                   std::int64_t bytes) {
  // The transport reads it only: one type of region serves both ends.
  start(true, peer, cargo, expert, const_cast<void*>(data), bytes);
}

void Flights::receive(int peer, Cargo cargo, std::int64_t expert, void* data, std::int64_t bytes) {
  start(false, peer, cargo, expert, data, bytes);
}

void Flights::start(bool sends, int peer, Cargo cargo, std::int64_t expert, void* data,
                    std::int64_t bytes) {
  if (bytes == 0) return;  // both ends know
  const std::int32_t tag = tag_base_ | (static_cast<std::int32_t>(cargo) << kExpertBits) |
                           static_cast<std::int32_t>(expert);
  const comm::TransferEnd end{.sends = sends,
                              .peer = peer,
                              .tag = tag,
                              .region = {.base = static_cast<std::byte*>(data), .run = bytes}};
  flights_.push_back({.ticket = communicator_.transport().start(end),
                      .sends = sends,
                      .peer = peer,
                      .cargo = cargo,
                      .expert = expert,
                      .bytes = bytes});
}

bool Flights::any_done() {
  communicator_.transport().progress();
  const auto over = [&](const Flight& f) { return communicator_.transport().done(f.ticket); };
  return std::erase_if(flights_, over) > 0;
}

void Flights::poll() {
  const auto now = std::chrono::steady_clock::now();
  if (flights_.empty() || now - last_poll_ < kPollGap) return;
  last_poll_ = now;
  any_done();
}

void Flights::wait() {
  const Deadline begun(communicator_.timeout_s());
  Deadline deadline(communicator_.timeout_s());
  comm::Backoff backoff;
  while (!flights_.empty()) {
    if (any_done()) {
      deadline = Deadline(communicator_.timeout_s());
      backoff = comm::Backoff();
      continue;
    }
    if (deadline.expired()) {
      throw Timeout(fmt::format("rank {}: item '{}' did not complete in {:.1f} s",
                                communicator_.rank(), present(), deadline.elapsed_s()));
    }
    communicator_.transport().rest(backoff);
  }
  exposed_s_ += begun.elapsed_s();
}

std::string Flights::text(const Flight& f) const {
  return fmt::format("{}, {} bytes {} rank {}", describe(f.cargo, f.expert), f.bytes,
                     f.sends ? "to" : "from", f.peer);
}

const Flights::Flight& Flights::awaited() const {
  return *std::ranges::min_element(flights_, {}, &Flight::sends);
}

std::string Flights::present() const {
  const std::string where = fmt::format("moe {}, round {}", phase_, round_);
  return flights_.empty() ? where : where + ": " + text(awaited());
}

}  // namespace annulus::moe
