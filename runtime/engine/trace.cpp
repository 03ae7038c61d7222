#include <annulus/trace.h>

#include "runtime/base/clock.h"
#include "runtime/engine/bound_pass.h"

#include <annulus/collective.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <cstddef>
#include <fstream>
#include <string>

namespace annulus {
namespace {

constexpr std::size_t kProbes = 25;

/// What is the same for processes that read the same CLOCK_MONOTONIC, but for time namespaces.
std::array<char, 64> machine() {
  std::array<char, 64> id{};
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  boot.read(id.data(), id.size() - 1);
  return id;
}

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}
template <typename T>
std::span<std::byte> writable(T& value) {
  return std::as_writable_bytes(std::span(&value, 1));
}

/// On rank 0.
std::vector<ClockProbe> probe(Mesh& mesh, int rank) {
  std::vector<ClockProbe> probes(kProbes);
  for (ClockProbe& p : probes) {
    p.begin_s = monotonic_s();
    send(mesh, rank, bytes_of(p.begin_s), "clocks: there");
    receive(mesh, rank, writable(p.there_s), "clocks: and back");
    p.end_s = monotonic_s();
  }
  return probes;
}

void answer(Mesh& mesh) {
  for (std::size_t i = 0; i < kProbes; ++i) {
    double asked = 0;
    receive(mesh, 0, writable(asked), "clocks: there");
    const double mine = monotonic_s();
    send(mesh, 0, bytes_of(mine), "clocks: and back");
  }
}

/// What of a trace travels before its samples.
struct Head {
  Pass pass = Pass::forward;
  double begin_s = 0, end_s = 0, clock_error_s = 0;
  bool waits_inside = false, counted = false;
  double waited_s = 0;
  std::uint64_t samples = 0;
};

}  // namespace

namespace engine {

void refuse_unrecorded(Pass pass) {
  throw InvalidArgument(
      fmt::format("attention: no {} call was recorded: record(true) before it", name_of(pass)));
}

}  // namespace engine

std::vector<ClockOffset> clock_offsets(Mesh& mesh) {
  const auto mine = machine();
  std::vector<std::array<char, 64>> machines(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, bytes_of(mine), std::as_writable_bytes(std::span(machines)), "clocks: machines");
  std::vector<ClockOffset> offsets;
  if (mesh.rank() == 0) offsets.push_back({});
  for (int r = 1; r < mesh.world(); ++r) {
    // One at a time: a rank that computes would lengthen the others' round trips.
    barrier(mesh, "clocks: next rank");
    if (mesh.rank() == r) answer(mesh);
    if (mesh.rank() != 0) continue;
    const bool same = machines[static_cast<std::size_t>(r)] == mine && mine[0] != 0;
    offsets.push_back(clock_offset_of(probe(mesh, r), same));
  }
  return offsets;
}

std::vector<CallTrace> gather_traces(Mesh& mesh, const CallTrace& mine) {
  const Head head{mine.pass,
                  mine.begin_s,
                  mine.end_s,
                  mine.clock_error_s,
                  mine.waits_inside,
                  mine.waited_s.has_value(),
                  mine.waited_s.value_or(0.0),
                  mine.samples.size()};
  std::vector<Head> heads(static_cast<std::size_t>(mesh.world()));
  all_gather(mesh, bytes_of(head), std::as_writable_bytes(std::span(heads)), "traces: sizes");
  if (mesh.rank() != 0) {
    if (head.samples > 0) send(mesh, 0, std::as_bytes(std::span(mine.samples)), "trace");
    return {};
  }
  std::vector<CallTrace> all{mine};
  for (int r = 1; r < mesh.world(); ++r) {
    const Head& h = heads[static_cast<std::size_t>(r)];
    CallTrace& trace = all.emplace_back(
        CallTrace{h.pass, h.begin_s, h.end_s, h.clock_error_s, h.waits_inside, {}, {}});
    if (h.counted) trace.waited_s = h.waited_s;
    trace.samples.resize(h.samples);
    if (h.samples > 0) receive(mesh, r, std::as_writable_bytes(std::span(trace.samples)), "trace");
  }
  return all;
}

}  // namespace annulus
