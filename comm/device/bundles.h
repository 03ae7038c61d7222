#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace annulus::comm {

/// A transfer as bundles see it (DeviceTransfer::bundle).
struct BundleMember {
  bool sends = false;
  int peer = 0;
  std::int32_t round = 0;
  std::int32_t bundle = -1;  ///< -1: its flags are its own
};

/// The transfers whose flags are this one's. Both ends of a transfer find the same ones, since they
/// stand in the same order at both.
struct BundleFlags {
  std::int32_t opener = -1;  ///< whose `open` says that this destination is free too
  std::int32_t closer = -1;  ///< whose `there` says that this one is there too
};

/// By transfer.
std::vector<BundleFlags> bundle_flags(std::span<const BundleMember> transfers);

}  // namespace annulus::comm
