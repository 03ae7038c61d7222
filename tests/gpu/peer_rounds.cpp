#include "tests/gpu/peer_rounds.h"

#include "comm/peer/peer_link.h"
#include "comm/peer/stream_ops.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"

#include <annulus/error.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <thread>
#include <utility>

namespace annulus::testing {
namespace {

constexpr int kRounds = 9;
constexpr std::int64_t kRoom = std::int64_t{1} << 30;  ///< more than any cache holds
constexpr double kDeadline = 20.0;

comm::Region piece(std::byte* base, std::int64_t bytes) {
  comm::Region region;
  region.base = base;
  region.run = bytes;
  return region;
}

/// What rank r's source holds at byte `at`: another byte in every piece of 64 KiB.
int pattern(int rank, std::int64_t at) { return static_cast<int>((rank * 37 + at / 65536) & 0x7f); }

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

PeerRounds::PeerRounds(comm::Communicator& communicator, int device, const PeerOptions& options)
    : communicator_(communicator),
      options_(options),
      driver_(comm::peer::Driver::load()),
      before_((communicator.rank() + communicator.size() - 1) % communicator.size()),
      after_((communicator.rank() + 1) % communicator.size()),
      room_(std::max(kRoom, 2 * options.largest)),
      given_(options.given ? 2 * room_ : 0),
      control_(communicator, driver_, communicator.host(), device,
               comm::peer::ControlBlock::bytes(communicator.size())),
      arena_(communicator, driver_, communicator.host(), device, 2 * room_,
             {given_.data(), static_cast<std::size_t>(given_.bytes())}) {
  for (int r = 0; r < communicator.size(); ++r) {
    blocks_.emplace_back(control_.of(r), communicator.size());
    if (arena_.of(r) == nullptr) throw Unsupported("rank out of reach: " + arena_.why_not(r));
  }
  check_cuda(cudaMemset(control_.local(), 0, static_cast<std::size_t>(control_.bytes())),
             "cudaMemset");
  void* words = nullptr;
  check_cuda(cudaHostAlloc(&words, 64, cudaHostAllocMapped), "cudaHostAlloc");
  std::memset(words, 0, 64);
  words_ = static_cast<std::uint32_t*>(words);
  for (std::int64_t at = 0; at < room_; at += 65536) {
    check_cuda(cudaMemsetAsync(arena_.local() + at, pattern(communicator.rank(), at), 65536,
                               copies_.get()),
               "cudaMemsetAsync");
  }
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  communicator_.barrier("sources are there");
}

PeerRounds::~PeerRounds() { (void)cudaFreeHost(words_); }

std::uint32_t* PeerRounds::noted(int stream) const {
  if (stream == comm::peer::ControlBlock::kLanes) return words_ + 5;
  return blocks_[static_cast<std::size_t>(communicator_.rank())].awaited(stream);
}

std::uint32_t PeerRounds::read_note(int stream) const {
  check_cuda(
      cudaMemcpyAsync(words_ + 6, noted(stream), sizeof *words_, cudaMemcpyDefault, reader_.get()),
      "read of a note");
  const Deadline deadline(1.0);
  while (cudaStreamQuery(reader_.get()) == cudaErrorNotReady) {
    if (deadline.expired()) return 0;
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  return words_[6];
}

std::int64_t PeerRounds::place(int transfer, std::int64_t bytes) const {
  return transfer % (room_ / bytes) * bytes;
}

std::vector<comm::DeviceTransfer> PeerRounds::transfers(std::int64_t bytes) const {
  std::vector<comm::DeviceTransfer> list;
  for (const bool sends : {true, false}) {
    for (int i = 0; i < options_.transfers; ++i) {
      const std::int64_t at = place(i, bytes);
      const int peer = sends ? after_ : before_;
      comm::DeviceTransfer t;
      t.sends = sends;
      t.peer = peer;
      t.tag = i;
      t.round = i;  // each alone
      t.pulls = options_.pulls;
      t.own = piece(arena_.local() + (sends ? 0 : room_) + at, bytes);
      if (sends != options_.pulls) {
        t.theirs = piece(arena_.of(peer) + (sends ? room_ : 0) + at, bytes);
      }
      list.push_back(t);
    }
  }
  return list;
}

double PeerRounds::timed(const std::function<void()>& enqueue) {
  const std::pair<cudaStream_t, int> streams[] = {{flags_.get(), 0}, {copies_.get(), 1}};
  for (const auto& [stream, gate] : streams) {
    comm::peer::StreamBatch hold(driver_, stream);
    hold.consume(words_ + gate, 1);
    hold.enqueue();
  }
  check_cuda(cudaEventRecord(begin_.get(), copies_.get()), "cudaEventRecord");
  enqueue();
  check_cuda(cudaEventRecord(joined_.get(), flags_.get()), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(copies_.get(), joined_.get(), 0), "cudaStreamWaitEvent");
  check_cuda(cudaEventRecord(end_.get(), copies_.get()), "cudaEventRecord");
  communicator_.barrier("a round is enqueued");
  for (int gate = 0; gate < 2; ++gate) {
    std::atomic_ref(words_[gate]).store(1, std::memory_order_release);
  }
  const Deadline deadline(kDeadline);
  cudaError_t code = cudaEventQuery(end_.get());
  for (; code == cudaErrorNotReady && !deadline.expired(); code = cudaEventQuery(end_.get())) {
    std::this_thread::sleep_for(std::chrono::microseconds(20));
  }
  if (code == cudaErrorNotReady) {
    throw Timeout("rank " + std::to_string(communicator_.rank()) + ": a round hangs, waiting for " +
                  std::to_string(read_note(0)) + " and " + std::to_string(read_note(1)) +
                  " (1 + transfer; flags, copies)");
  }
  check_cuda(code, "a round");
  float ms = 0;
  check_cuda(cudaEventElapsedTime(&ms, begin_.get(), end_.get()), "cudaEventElapsedTime");
  const double mine = ms * 1e-3;
  std::vector<double> all(static_cast<std::size_t>(communicator_.size()));
  communicator_.all_gather(std::as_bytes(std::span(&mine, 1)),
                           std::as_writable_bytes(std::span(all)), "times of a round");
  return *std::max_element(all.begin(), all.end());
}

/// As a session does: flags on one stream, what moves data on the other, then what the other ends
/// say.
void PeerRounds::play(const comm::DeviceLink& link, bool turns) {
  const comm::LinkStream flags{flags_.get(), noted(0)};
  const comm::LinkStream copies{copies_.get(), noted(1)};
  const comm::LinkStream others{others_.get(), noted(2)};
  if (turns) check_cuda(cudaStreamWaitEvent(others_.get(), begin_.get(), 0), "cudaStreamWaitEvent");
  std::vector<std::int32_t> raised;
  for (std::int32_t i = 0; i < 2 * options_.transfers; ++i) {
    if (!link.by_flag(i)) continue;
    link.start(i, flags);
    raised.push_back(i);
  }
  for (std::int32_t i = 0; i < 2 * options_.transfers; ++i) {
    if (!link.by_flag(i)) link.start(i, turns && i % 2 == 1 ? others : copies);
  }
  link.await_over(raised, flags);
  link.flush();
  if (!turns) return;
  check_cuda(cudaEventRecord(others_over_.get(), others_.get()), "cudaEventRecord");
  check_cuda(cudaStreamWaitEvent(copies_.get(), others_over_.get(), 0), "cudaStreamWaitEvent");
}

void PeerRounds::poison(std::int64_t bytes) {
  const std::int64_t used = std::min<std::int64_t>(options_.transfers, room_ / bytes) * bytes;
  check_cuda(cudaMemset(arena_.local() + room_, 0xff, static_cast<std::size_t>(used)),
             "cudaMemset");
  check_cuda(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
  communicator_.barrier("targets are poisoned");
}

bool PeerRounds::is_right(std::int64_t bytes) const {
  const std::int64_t used = std::min<std::int64_t>(options_.transfers, room_ / bytes) * bytes;
  std::vector<unsigned char> target(static_cast<std::size_t>(used));
  check_cuda(
      cudaMemcpy(target.data(), arena_.local() + room_, target.size(), cudaMemcpyDeviceToHost),
      "cudaMemcpy");
  int mine = 1;
  for (std::int64_t at = 0; at < used; at += 4099) {
    if (target[static_cast<std::size_t>(at)] != pattern(before_, at)) mine = 0;
  }
  std::vector<int> all(static_cast<std::size_t>(communicator_.size()));
  communicator_.all_gather(std::as_bytes(std::span(&mine, 1)),
                           std::as_writable_bytes(std::span(all)), "results of a round");
  return *std::min_element(all.begin(), all.end()) == 1;
}

void PeerRounds::copy_one(int transfer, std::int64_t bytes) {
  const std::int64_t at = place(transfer, bytes);
  comm::Plane plane;
  plane.from = options_.pulls ? arena_.of(before_) + at : arena_.local() + at;
  plane.to = (options_.pulls ? arena_.local() : arena_.of(after_)) + room_ + at;
  plane.run = bytes;
  comm::peer::copy(copies_.get(), plane);
}

std::vector<PeerGap> PeerRounds::gaps(std::int64_t bytes) {
  using comm::peer::StreamBatch;
  constexpr std::int32_t kTag = comm::peer::ControlBlock::kTags - 1;  // no transfer's
  const int rank = communicator_.rank();
  std::uint32_t* const own = blocks_[static_cast<std::size_t>(rank)].ready(before_, kTag);
  std::uint32_t* const theirs = blocks_[static_cast<std::size_t>(before_)].free(rank, kTag);
  std::uint32_t* const of_host = words_ + 4;
  const auto wait = [&](StreamBatch& batch) { batch.await(own, 0); };  // is over at once
  const auto reset = [&](StreamBatch& batch) { batch.write(own, 0); };
  const auto give = [&](StreamBatch& batch) { batch.write(theirs, 1); };
  const auto note = [&](StreamBatch& batch) { batch.write(noted(1), 1); };
  const auto host = [&](StreamBatch& batch) { batch.write(of_host, 1); };
  const std::pair<const char*, std::vector<std::function<void(StreamBatch&)>>> kinds[] = {
      {"none", {}},
      {"wait", {wait}},
      {"write here", {reset}},
      {"write there", {give}},
      {"write to the host", {host}},
      {"reset, give, note, wait", {reset, give, note, wait}},
      {"reset, give, host's note, wait", {reset, give, host, wait}},
      {"reset, give, wait: no note", {reset, give, wait}},
  };
  std::vector<PeerGap> gaps;
  for (const auto& [name, operations] : kinds) {
    std::vector<double> times;
    for (int round = 0; round <= kRounds; ++round) {
      times.push_back(timed([&] {
        for (int i = 0; i < options_.transfers; ++i) {
          StreamBatch batch(driver_, copies_.get());
          for (const auto& add : operations) add(batch);
          batch.enqueue();
          copy_one(i, bytes);
        }
      }));
    }
    times.erase(times.begin());  // warm-up
    gaps.push_back({name, 1e6 * median(times) / options_.transfers});
  }
  return gaps;
}

PeerRates PeerRounds::measure(std::int64_t bytes) {
  const comm::peer::PeerLink link(driver_, communicator_.rank(), blocks_, transfers(bytes), 77,
                                  false);
  const auto bare = [&](int count) {
    for (int i = 0; i < count; ++i) copy_one(i, bytes);
  };
  // `row` bytes at a time, at twice the pitch on one side.
  const auto spread = [&](std::int64_t row, bool read) {
    for (int i = 0; i < options_.transfers; ++i) {
      const std::int64_t from = place(i, read ? 2 * bytes : bytes);
      const std::int64_t to = place(i, read ? bytes : 2 * bytes);
      comm::Plane plane;
      plane.from = options_.pulls ? arena_.of(before_) + from : arena_.local() + from;
      plane.to = (options_.pulls ? arena_.local() : arena_.of(after_)) + room_ + to;
      plane.run = row;
      plane.rows = bytes / row;
      plane.from_pitch = read ? 2 * row : row;
      plane.to_pitch = read ? row : 2 * row;
      comm::peer::copy(copies_.get(), plane);
    }
  };
  PeerRates rates;
  std::vector<double> one, all, rows, land, turns, peer;
  for (int round = 0; round <= kRounds; ++round) {
    one.push_back(timed([&] { bare(1); }));
    all.push_back(timed([&] { bare(options_.transfers); }));
    rows.push_back(timed([&] { spread(4096, true); }));
    land.push_back(timed([&] { spread(bytes / 16, false); }));
    turns.push_back(timed([&] { play(link, true); }));
    if (round == kRounds) poison(bytes);
    peer.push_back(timed([&] { play(link, false); }));
  }
  rates.right = is_right(bytes);
  const double gb = static_cast<double>(bytes) * 1e-9;
  for (std::vector<double>* times : {&one, &all, &rows, &land, &turns, &peer})
    times->erase(times->begin());  // warm-up
  rates.one_gb_s = gb / median(one);
  rates.bare_gb_s = gb * options_.transfers / median(all);
  rates.rows_gb_s = gb * options_.transfers / median(rows);
  rates.land_gb_s = gb * options_.transfers / median(land);
  rates.turns_gb_s = gb * options_.transfers / median(turns);
  rates.peer_gb_s = gb * options_.transfers / median(peer);
  return rates;
}

}  // namespace annulus::testing
