#pragma once

#include "attention/execute/arrivals.h"

#include <annulus/plan.h>

#include <cstdint>
#include <vector>

namespace annulus::attn {

/// The streams of a rank: compute items and what they wait for on one, copies on the other.
enum class Lane : std::uint8_t { compute, copy };

/// What a link says of each transfer of a plan.
struct TransferTraits {
  std::int32_t group_end = -1;  ///< the transfer that starts the launch it goes in; itself if alone
  bool by_flag = false;         ///< this end only raises a flag: over when the other end says so
  bool beside_kernels = false;  ///< moves while a kernel holds every SM
  // The transfers whose flags say that the destination is free, and that this one is there: those
  // of its bundle (DeviceLink), else itself.
  std::int32_t opener = -1;
  std::int32_t closer = -1;
};

/// One call on one stream, in enqueue order.
struct Step {
  enum class Kind : std::uint8_t {
    compute,     ///< index: item
    transfer,    ///< index: transfer
    raise,       ///< index, count: entries of Schedule::raised, flags one after the other
    await_over,  ///< index, count: entries of Schedule::awaited
    sources,     ///< index, count: entries of Schedule::arrivals: waits for what they are read from
    move,        ///< index: transfer whose source was awaited
    arrived,     ///< index: attend, count: what its counter holds from here on
    departed,    ///< index: entry of Schedule::departures: waits until those heads are done
    release,     ///< index, count: entries of Schedule::arrivals: tells their other ends
    begun,       ///< waits until what the call's first launch clears is cleared
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
  std::vector<std::int32_t> awaited;   ///< transfers by flag of await_over steps
  std::vector<std::int32_t> raised;    ///< transfers by flag
  std::vector<std::int32_t> arrivals;  ///< transfers of sources and release steps
  std::vector<HeadSpan> departures;
  std::int32_t events = 0;
  bool copies = false;  ///< the copy lane is used
  bool early = false;   ///< it begins before the call's first launch: see begun
};

/// `traits`: by transfer. Every flag is answered and the copy lane joined at the end, so that slots
/// and signals belong to the next call. Steps follow the order of the plan, but a receive by flag
/// is raised as early as it can be: a send that moves data waits for it, and ranks that all wait so
/// must all have raised theirs. An attend whose keys may arrive while it runs waits for the sources
/// of their transfers instead: what its kernel then waits for, copies by this rank, needs nobody.
/// That is so where all those transfers move data here, beside kernels. Where all are pushed,
/// beside kernels, by ranks that are pushed to in turn, this rank's pushes and what comes in go
/// round by round, and the attend waits until all other ranks have begun, or for the first round.
/// Else it waits for them. Likewise flags that say that the results of some heads may be read are
/// raised on the copy lane when the kernel says so, where their transfers run beside kernels.
/// Throws Unsupported where an item waits for a transfer whose group starts later.
Schedule make_schedule(const RankPlan& plan, const std::vector<TransferTraits>& traits);

}  // namespace annulus::attn
