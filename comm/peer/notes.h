#pragma once

#include "comm/peer/control_block.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

namespace annulus::comm::peer {

/// What the streams of one rank say. Written in stream order.
struct Notes {
  std::uint32_t calls;  ///< counts calls, replays of a graph included; mapped host memory
  std::uint32_t pass;   ///< of the call that runs: an index of the caller's; there too
  std::uint32_t awaited[ControlBlock::kLanes];  ///< by lane: 1 + transfer, 0: none

  bool waits() const { return awaited[0] != 0 || awaited[1] != 0; }
  friend bool operator==(const Notes& a, const Notes& b) {
    return std::memcmp(&a, &b, sizeof a) == 0;
  }
};

/// One look at them.
struct Seen {
  Notes notes{};
  bool told = false;  ///< another rank raised our abort word
};

/// The words of a control block that a look copies from the device: the abort word, and what is
/// awaited.
using ToldWords = std::array<std::uint32_t, ControlBlock::kToldWords>;

/// `host()`: Notes as mapped host memory has them; `device()`: ToldWords, some microseconds each.
/// `on_host`: what is awaited is there too, and where nothing is, nothing is copied. A call counts
/// itself before its streams note anything: what is copied between two equal counts is of that
/// call. Streams that count while they are looked at stand at no wait, and are seen next time.
template <typename Host, typename Device>
Seen look_at(Host&& host, Device&& device, bool on_host) {
  constexpr int kTries = 4;
  Seen seen{host()};
  if (on_host) {
    seen.told = seen.notes.waits() && device()[0] != 0;
    return seen;
  }
  for (int i = 0; i < kTries; ++i) {
    const ToldWords told = device();
    const Notes before = seen.notes;
    seen = {host(), told[0] != 0};
    std::copy_n(told.begin() + ControlBlock::kFirstNote, ControlBlock::kLanes, seen.notes.awaited);
    if (before.calls == seen.notes.calls && before.pass == seen.notes.pass) break;
  }
  return seen;
}

}  // namespace annulus::comm::peer
