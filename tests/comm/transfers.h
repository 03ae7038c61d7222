#pragma once

#include "comm/backoff.h"
#include "comm/mesh.h"
#include "comm/transport.h"
#include "runtime/base/clock.h"

#include <annulus/error.h>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

namespace annulus::testing {

using Buffer = std::vector<std::byte>;

/// Bytes that differ for each sender, receiver, tag and place.
inline Buffer pattern(int sender, int receiver, int tag, std::int64_t bytes) {
  Buffer buffer(static_cast<std::size_t>(bytes));
  auto state = static_cast<std::uint32_t>(sender * 7919 + receiver * 104729 + tag * 1299709 + 1);
  for (std::byte& value : buffer) {
    state = state * 1664525U + 1013904223U;
    value = static_cast<std::byte>(state >> 24U);
  }
  return buffer;
}

inline comm::Region dense(Buffer& buffer) {
  return {.base = buffer.data(), .run = static_cast<std::int64_t>(buffer.size())};
}

/// Transfers of one rank that are under way.
class Transfers {
 public:
  explicit Transfers(Mesh& mesh) : transport_(mesh.impl().communicator->transport()) {}

  void send(int peer, int tag, const comm::Region& region) { start(true, peer, tag, region); }
  void receive(int peer, int tag, const comm::Region& region) { start(false, peer, tag, region); }

  /// Throws what progress() throws, Timeout after 20 s.
  void wait() {
    const Deadline deadline(20.0);
    for (comm::Backoff backoff; !open_.empty(); transport_.rest(backoff)) {
      transport_.progress();
      std::erase_if(open_, [&](comm::Transport::Ticket ticket) { return transport_.done(ticket); });
      if (deadline.expired()) throw Timeout("transfers of a test");
    }
  }

 private:
  void start(bool sends, int peer, int tag, const comm::Region& region) {
    open_.push_back(transport_.start({.sends = sends, .peer = peer, .tag = tag, .region = region}));
  }

  comm::Transport& transport_;
  std::vector<comm::Transport::Ticket> open_;
};

}  // namespace annulus::testing
