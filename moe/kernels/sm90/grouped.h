#pragma once

#include "moe/kernels/cuda/gemms.h"
#include "moe/kernels/sm90/tiles.h"
#include "runtime/base/kernel_entries.h"

#include <array>
#include <cstdint>
#include <optional>
#include <span>

// Grouped products of experts on Hopper: which products they are, and their launch.
namespace annulus::moe::sm90 {

/// An operand as bulk copies see it, innermost first.
struct MapShape {
  const void* data = nullptr;
  std::array<std::uint64_t, 4> extents{};  ///< elements
  std::array<std::uint64_t, 3> strides{};  ///< bytes
};

/// One launch.
struct GroupedCall {
  Grouped told;
  MapShape a;           ///< k, rows
  MapShape b;           ///< k, n, expert; across: n, k, expert
  bool across = false;  ///< b's rows lie across the contraction
};

/// Rows of a box of b.
constexpr int box_rows_of(Tuning t, bool across) { return across ? 64 : t.columns; }

/// The works as one launch, heaviest expert first as they come; none where they do not suit: bf16
/// throughout, nothing added to, one n and k, experts' rows one after the other in both memories
/// (in any order of experts), rows of 16-byte pieces, at most kMostGroups experts. Pure.
std::optional<GroupedCall> grouped_of(std::span<const cuda::GemmWork> works);

/// Row tiles of a band: with all columns about as many tiles as multiprocessors.
inline constexpr int kBand = 8;

/// May the current device run it?
bool has_grouped();

/// Enqueues on `stream` (cudaStream_t) of the current device. `tuning` is one of kTunings. Throws
/// Unsupported for another one or without a driver that has bulk copies; DeviceError.
void launch_grouped(const GroupedCall& call, Tuning tuning, int band, void* stream);
/// All that it may launch, where has_grouped().
KernelEntries grouped_entries();

}  // namespace annulus::moe::sm90
