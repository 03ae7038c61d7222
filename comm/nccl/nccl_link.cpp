#include "comm/nccl/nccl_link.h"

#include "comm/device/rounds.h"
#include "comm/peer/stream_ops.h"

#include <algorithm>
#include <cstddef>
#include <utility>

namespace annulus::comm::nccl {
namespace {

constexpr std::int64_t kAlign = 256;
constexpr std::int32_t kWarp = 32;

std::int64_t padded(std::int64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

/// The widest power of two, up to 16, that divides all of them.
std::int32_t common_width(const Region& r) {
  auto bits = static_cast<std::uint64_t>(r.run) | reinterpret_cast<std::uintptr_t>(r.base);
  for (const std::int64_t stride : r.stride) bits |= static_cast<std::uint64_t>(stride);
  std::int32_t width = 16;
  while ((bits & static_cast<std::uint64_t>(width - 1)) != 0) width /= 2;
  return width;
}

PackJob job_of(const Region& r, std::byte* dense) {
  PackJob job;
  job.strided = r.base;
  job.dense = dense;
  std::copy(r.count.begin(), r.count.end(), job.count);
  std::copy(r.stride.begin(), r.stride.end(), job.stride);
  job.run = r.run;
  job.width = common_width(r);
  while (job.lanes < kWarp && job.lanes * job.width < r.run) job.lanes *= 2;
  return job;
}

std::int64_t threads_of(const PackJob& job) { return pieces_of(job) * job.lanes; }

bool in_one_piece(const Region& joined) {
  return joined.count == std::array<std::int64_t, 3>{1, 1, 1};
}

}  // namespace

NcclLink::NcclLink(const peer::Driver& driver, const NcclCommunicator* communicator,
                   std::vector<DeviceTransfer> transfers, const std::vector<bool>& moves,
                   DevicePool& pool, Staging* staging)
    : driver_(driver), communicator_(communicator) {
  std::vector<RoundMember> members;
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    transfers[i].own = coalesce(transfers[i].own);
    members.push_back({transfers[i].round, moves[i]});
  }
  ends_ = round_ends(members);
  make_rounds(transfers, moves, pool, staging);
}

void NcclLink::make_rounds(const std::vector<DeviceTransfer>& transfers,
                           const std::vector<bool>& moves, DevicePool& pool, Staging* staging) {
  const auto staged = [&](std::size_t i) { return moves[i] && !in_one_piece(transfers[i].own); };
  std::map<std::int32_t, std::int64_t> used;  // bytes of staging memory by round
  std::int64_t largest = 0;
  std::int64_t count = 0;
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    if (!staged(i)) continue;
    std::int64_t& bytes = used[ends_[i]];
    bytes += padded(transfers[i].own.bytes());
    largest = std::max(largest, bytes);
    ++count;
  }
  jobs_ = pool.take(count * static_cast<std::int64_t>(sizeof(PackJob)));
  std::byte* const room = staging == nullptr ? nullptr : staging->room_for(largest);
  used.clear();

  std::map<std::int32_t, std::vector<PackJob>> jobs[2];  // by `packs`, then by round
  for (std::size_t i = 0; i < transfers.size(); ++i) {
    if (!moves[i]) continue;
    const DeviceTransfer& t = transfers[i];
    std::byte* data = t.own.base;
    if (staged(i)) {
      data = room + used[ends_[i]];
      used[ends_[i]] += padded(t.own.bytes());
      jobs[t.sends ? 1 : 0][ends_[i]].push_back(job_of(t.own, data));
    }
    // In the order of tags for each pair of ranks: so they meet.
    rounds_[ends_[i]].messages.push_back({t.sends, t.peer, data, t.own.bytes()});
  }

  const auto* place = reinterpret_cast<const PackJob*>(jobs_.data());
  std::vector<PackJob> all;
  for (const bool packs : {false, true}) {
    for (const auto& [end, list] : jobs[packs ? 1 : 0]) {
      PackLaunch launch{place + all.size(), static_cast<std::int32_t>(list.size()), 0, packs};
      for (const PackJob& job : list) launch.threads = std::max(launch.threads, threads_of(job));
      (packs ? rounds_[end].pack : rounds_[end].unpack) = launch;
      all.insert(all.end(), list.begin(), list.end());
    }
  }
  std::ranges::copy(std::as_bytes(std::span(all)), pool.stage(jobs_.bytes()).begin());
  pool.send(jobs_.data());
  if (!all.empty()) load_kernels(pack_entries());
}

void NcclLink::start(std::int32_t transfer, const LinkStream& on) const {
  const auto found = rounds_.find(transfer);
  if (found == rounds_.end()) return;
  const Round& round = found->second;
  launch_pack(round.pack, on.stream);
  peer::StreamBatch note(driver_, on.stream);
  note.write(on.awaited, static_cast<std::uint32_t>(transfer) + 1);
  note.enqueue();
  communicator_->exchange(round.messages, on.stream);
  note.write(on.awaited, 0);
  note.enqueue();
  launch_pack(round.unpack, on.stream);
}

}  // namespace annulus::comm::nccl
