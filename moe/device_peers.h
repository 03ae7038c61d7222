#pragma once

#include "moe/exchange_plan.h"
#include "moe/flights.h"
#include "moe/row_carrier.h"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace annulus::moe {

/// The expert group of a DeviceLayer: memory of its ranks as this rank's device addresses it, and
/// how they meet. They meet on the host, over the mesh's own transport: a few words, with the
/// mesh's deadline.
class DevicePeers {
 public:
  /// `regions`: DeviceLayer::region_bytes of each rank of the group, by rank.
  DevicePeers(comm::Communicator& communicator, const Group& group, std::uint32_t hash,
              std::vector<std::byte*> regions);
  /// Ranks that do not address each other's memory: `carrier`, which outlives this, moves rows.
  DevicePeers(comm::Communicator& communicator, const Group& group, std::uint32_t hash,
              RowCarrier& carrier);

  const Group& group() const { return group_; }
  std::byte* region(int rank) const { return regions_[static_cast<std::size_t>(rank)]; }

  RowCarrier* carrier() const { return carrier_; }  ///< null: regions are addressed

  /// Everybody's words, by rank. Whoever returns knows that all have come. `phase`: for messages.
  void gather(const char* phase, std::span<const std::int64_t> mine, std::span<std::int64_t> all);
  void meet(const char* phase);

  const Flights& flights() const { return flights_; }
  Flights& flights() { return flights_; }

 private:
  Group group_;
  std::vector<std::byte*> regions_;
  RowCarrier* carrier_ = nullptr;
  Flights flights_;
  std::int64_t meetings_ = 0;
  std::vector<std::int64_t> words_;
};

}  // namespace annulus::moe
