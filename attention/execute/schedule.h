#pragma once

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// The streams of a rank: compute items and what they wait for on one, copies on the other.
enum class Lane : std::uint8_t { compute, copy };

/// What a link says of each transfer of a plan.
struct TransferTraits {
  std::int32_t group_end = -1;  ///< the transfer that starts the launch it goes in; itself if alone
  bool by_flag = false;         ///< a send that only raises a flag: over when its receiver says so
};

/// One call on one stream, in enqueue order.
struct Step {
  enum class Kind : std::uint8_t {
    compute,     ///< index: item
    transfer,    ///< index: transfer
    await_free,  ///< index, count: entries of Schedule::awaited
    record,      ///< index: event, of this lane
    wait         ///< index: event, recorded on the other lane
  };
  Kind kind = Kind::compute;
  Lane lane = Lane::compute;
  std::int32_t index = 0;
  std::int32_t count = 1;
};

/// A rank's plan as calls on two streams. Stream order and events give every edge of the plan; an
/// event is used only where neither stream order nor an earlier event says the same.
struct Schedule {
  std::vector<Step> steps;
  std::vector<std::int32_t> awaited;  ///< transfers (sends) of await_free steps
  std::int32_t events = 0;
  bool copies = false;  ///< the copy lane is used
};

/// `traits`: by transfer. Every send's `free` is awaited and the copy lane joined at the end, so
/// that slots and signals belong to the next call. Throws Unsupported where an item waits for a
/// transfer whose group starts later.
Schedule make_schedule(const RankPlan& plan, const std::vector<TransferTraits>& traits);

}  // namespace annulus::attn
