#include "tests/gpu/moe_time_nccl.h"

#include "comm/nccl/library.h"
#include "moe/kernels/cuda/launch.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "tests/gpu/moe_times.h"

#include <annulus/error.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>

namespace annulus::testing {
namespace {

using comm::nccl::check;
using comm::nccl::Library;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// One GPU: rows in the order in which they are sent, and room for what comes.
struct Side {
  NcclSource source;
  std::vector<std::int32_t> sent;      ///< token of each packed row, by expert, then token
  std::vector<std::int64_t> to, from;  ///< rows for and from each rank
  DeviceBuffer token_of, packed, received;
  ncclComm_t comm = nullptr;
};

void sort_by_expert(Side& side, std::int32_t experts, std::int64_t k, int ranks) {
  std::vector<std::vector<std::int32_t>> tokens(at(experts));
  for (std::int64_t pair = 0; pair < kTokens * k; ++pair) {
    tokens[at((*side.source.experts)[at(pair)])].push_back(static_cast<std::int32_t>(pair / k));
  }
  side.to.assign(at(ranks), 0);
  for (std::int32_t e = 0; e < experts; ++e) {
    const auto& of = tokens[at(e)];
    side.to[at(e / (experts / ranks))] += std::ssize(of);
    side.sent.insert(side.sent.end(), of.begin(), of.end());
  }
}

/// Rank and token at the start of each row: which row it is can be seen where it arrives.
void stamp(const Side& side, int rank, std::int64_t row_bytes) {
  std::vector<std::array<std::int32_t, 2>> marks(at(kTokens));
  for (std::int32_t t = 0; t < kTokens; ++t) marks[at(t)] = {rank, t};
  check_cuda(cudaMemcpy2D(side.source.x, at(row_bytes), marks.data(), 8, 8, at(kTokens),
                          cudaMemcpyHostToDevice),
             "marks of rows");
}

std::vector<std::unique_ptr<Side>> made_sides(const std::vector<NcclSource>& sources,
                                              std::int32_t experts, std::int64_t k,
                                              std::int64_t row_bytes) {
  std::vector<std::unique_ptr<Side>> sides;
  for (const NcclSource& source : sources) {
    sides.push_back(std::make_unique<Side>());
    sides.back()->source = source;
    sort_by_expert(*sides.back(), experts, k, static_cast<int>(sources.size()));
  }
  for (std::size_t r = 0; r < sides.size(); ++r) {
    Side& side = *sides[r];
    check_cuda(cudaSetDevice(side.source.device), "cudaSetDevice");
    std::int64_t rows = 0;
    for (const auto& other : sides) {
      side.from.push_back(other->to[r]);
      rows += other->to[r];
    }
    const std::vector<std::int64_t> token_of(side.sent.begin(), side.sent.end());
    side.token_of = DeviceBuffer(std::ssize(token_of) * 8);
    side.token_of.upload(std::as_bytes(std::span(token_of)), 0);
    side.packed = DeviceBuffer(std::ssize(token_of) * row_bytes);
    side.received = DeviceBuffer(std::max<std::int64_t>(1, rows) * row_bytes);
    stamp(side, static_cast<int>(r), row_bytes);
    for (const DeviceBuffer* buffer : {&side.packed, &side.received}) {
      check_cuda(cudaMemset(buffer->data(), 0xff, at(buffer->bytes())), "poison");
    }
    check_cuda(cudaDeviceSynchronize(), "uploads");
  }
  return sides;
}

void permute(const Side& side, std::int64_t row_bytes) {
  moe::cuda::copy_rows({.rows = std::ssize(side.sent),
                        .bytes = row_bytes,
                        .from_at = reinterpret_cast<const std::int64_t*>(side.token_of.data()),
                        .from = side.source.x,
                        .from_stride = row_bytes,
                        .to_at = nullptr,
                        .to = side.packed.data(),
                        .to_stride = row_bytes},
                       side.source.stream);
}

void exchange(const Side& side, std::int64_t row_bytes) {
  const Library& nccl = Library::get();
  check(nccl.group_start(), "ncclGroupStart");
  ncclResult_t worst = ncclSuccess;
  const auto keep = [&](ncclResult_t code) {
    if (worst == ncclSuccess) worst = code;
  };
  const std::byte* out = side.packed.data();
  std::byte* in = side.received.data();
  for (std::size_t r = 0; r < side.to.size(); ++r) {
    const auto peer = static_cast<int>(r);
    const std::int64_t sends = side.to[r] * row_bytes, receives = side.from[r] * row_bytes;
    if (sends > 0) {
      keep(nccl.send(out, at(sends), ncclInt8, peer, side.comm, side.source.stream));
    }
    if (receives > 0) {
      keep(nccl.receive(in, at(receives), ncclInt8, peer, side.comm, side.source.stream));
    }
    out += sends;
    in += receives;
  }
  const ncclResult_t end = nccl.group_end();  // a group that was begun must be ended
  check(worst, "ncclSend or ncclRecv", side.comm);
  check(end, "ncclGroupEnd", side.comm);
}

/// Communicators of all GPUs, made together; gone with this, aborted where work failed.
class Communicators {
 public:
  explicit Communicators(std::vector<std::unique_ptr<Side>>& sides) : sides_(sides) {
    const Library& nccl = Library::get();
    ncclUniqueId id{};
    check(nccl.get_unique_id(&id), "ncclGetUniqueId");
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 1;
    check(nccl.group_start(), "ncclGroupStart");
    ncclResult_t worst = ncclSuccess;
    for (std::size_t r = 0; r < sides.size() && worst == ncclSuccess; ++r) {
      check_cuda(cudaSetDevice(sides[r]->source.device), "cudaSetDevice");
      worst = nccl.init_rank(&sides[r]->comm, static_cast<int>(sides.size()), id,
                             static_cast<int>(r), &config);
    }
    const ncclResult_t end = nccl.group_end();
    check(worst, "ncclCommInitRank");
    check(end, "ncclCommInitRank");
  }
  Communicators(const Communicators&) = delete;
  Communicators& operator=(const Communicators&) = delete;
  ~Communicators() {
    for (auto& side : sides_) {
      if (side->comm == nullptr || gone_) continue;
      (void)cudaSetDevice(side->source.device);
      (void)Library::get().destroy(side->comm);
    }
  }

  /// So that nobody waits for a GPU whose thread failed.
  void abort() {
    if (gone_.exchange(true)) return;
    for (auto& side : sides_) (void)Library::get().abort(side->comm);
  }

 private:
  std::vector<std::unique_ptr<Side>>& sides_;
  std::atomic<bool> gone_{false};
};

/// work(side) in a thread for each GPU, with that GPU current.
template <typename Work>
void in_threads(std::vector<std::unique_ptr<Side>>& sides, Communicators& communicators,
                const Work& work) {
  std::exception_ptr failed;
  std::mutex mutex;
  std::vector<std::thread> threads;
  for (auto& side : sides) {
    threads.emplace_back([&, one = side.get()] {
      try {
        check_cuda(cudaSetDevice(one->source.device), "cudaSetDevice");
        work(*one);
      } catch (...) {
        {
          const std::scoped_lock lock(mutex);
          if (!failed) failed = std::current_exception();
        }
        communicators.abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  if (failed) std::rethrow_exception(failed);
}

/// Mean of calls back to back on all GPUs at once; the slowest GPU's.
template <typename Call>
double slowest(std::vector<std::unique_ptr<Side>>& sides, Communicators& communicators,
               const Call& call) {
  constexpr int kWarm = 3, kCalls = 20;
  std::mutex mutex;
  double most = 0;
  in_threads(sides, communicators, [&](Side& side) {
    cudaStream_t stream = side.source.stream;
    const CudaEvent begin = make_event(true), end = make_event(true);
    for (int i = 0; i < kWarm; ++i) call(side);
    check_cuda(cudaEventRecord(begin.get(), stream), "cudaEventRecord");
    for (int i = 0; i < kCalls; ++i) call(side);
    check_cuda(cudaEventRecord(end.get(), stream), "cudaEventRecord");
    check_cuda(cudaStreamSynchronize(stream), "calls");
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
    const std::scoped_lock lock(mutex);
    most = std::max(most, static_cast<double>(ms) * 1e3 / kCalls);
  });
  return most;
}

/// Each row that came is its token's: marks of all, and every 97th to its last byte.
void check_rows(const std::vector<std::unique_ptr<Side>>& sides, std::size_t rank,
                std::int64_t row_bytes) {
  const Side& side = *sides[rank];
  check_cuda(cudaSetDevice(side.source.device), "cudaSetDevice");
  std::int64_t rows = 0;
  for (const std::int64_t n : side.from) rows += n;
  std::vector<std::array<std::int32_t, 2>> marks(at(rows));
  check_cuda(cudaMemcpy2D(marks.data(), 8, side.received.data(), at(row_bytes), 8, at(rows),
                          cudaMemcpyDeviceToHost),
             "marks of rows");
  const auto wrong = [&](std::int64_t row, const std::string& what) {
    return DeviceError("NCCL's exchange: GPU " + std::to_string(side.source.device) + ", row " +
                       std::to_string(row) + ": " + what);
  };
  std::vector<std::byte> got(at(row_bytes)), want(at(row_bytes));
  std::int64_t row = 0;
  for (std::size_t s = 0; s < sides.size(); ++s) {
    std::int64_t first = 0;
    for (std::size_t before = 0; before < rank; ++before) first += sides[s]->to[before];
    for (std::int64_t i = 0; i < side.from[s]; ++i, ++row) {
      const std::int32_t token = sides[s]->sent[at(first + i)];
      const auto [rank_found, token_found] = marks[at(row)];
      if (rank_found != static_cast<std::int32_t>(s) || token_found != token) {
        throw wrong(row, "is token " + std::to_string(token_found) + " of rank " +
                             std::to_string(rank_found) + ", not " + std::to_string(token) +
                             " of " + std::to_string(s));
      }
      if (row % 97 != 0) continue;
      check_cuda(cudaMemcpy(got.data(), side.received.data() + row * row_bytes, got.size(),
                            cudaMemcpyDefault),
                 "a row");
      check_cuda(cudaMemcpy(want.data(), sides[s]->source.x + token * row_bytes, want.size(),
                            cudaMemcpyDefault),
                 "a token");
      if (got != want) throw wrong(row, "is not the bytes of its token");
    }
  }
}

}  // namespace

NcclTimes time_nccl(const std::vector<NcclSource>& sources, std::int32_t experts, std::int64_t k,
                    std::int64_t row_bytes) {
  (void)Library::get();
  auto sides = made_sides(sources, experts, k, row_bytes);
  Communicators communicators(sides);
  in_threads(sides, communicators, [&](Side& side) {
    permute(side, row_bytes);
    exchange(side, row_bytes);
    check_cuda(cudaStreamSynchronize(side.source.stream), "NCCL's exchange");
  });
  for (std::size_t r = 0; r < sides.size(); ++r) check_rows(sides, r, row_bytes);
  NcclTimes times;
  times.exchange_us = slowest(sides, communicators, [&](Side& side) { exchange(side, row_bytes); });
  times.permute_us = slowest(sides, communicators, [&](Side& side) { permute(side, row_bytes); });
  return times;
}

}  // namespace annulus::testing
