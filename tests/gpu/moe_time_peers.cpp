// Dispatch and combine between all GPUs of this host, a rank each, by stores and loads through a
// table of pointers: DeepSeek-V3's and Mixtral's rows. One process, so no transport: what the
// kernels and the links can do. Experts that return their rows make combine k times x, exactly.
// Beside it, in the same run, NCCL's all-to-all-v of every copy.
#include "moe/kernels/cuda/launch.h"
#include "runtime/base/cuda_check.h"
#include "runtime/base/cuda_handles.h"
#include "tests/gpu/moe_time_nccl.h"
#include "tests/gpu/moe_times.h"

#include <annulus/error.h>
#include <annulus/moe.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

namespace annulus::testing {

namespace {

using namespace moe::cuda;  // NOLINT

struct Shape {
  const char* name;
  std::int64_t hidden;
  std::int32_t experts, k;
};

/// One GPU: tokens, their places on all ranks, and room for the rows that come.
struct Rank {
  Rank(const Shape& s, int rank, int ranks) : device(rank), stream(make_stream()) {
    const std::int64_t pairs = kTokens * s.k;
    x = random_bf16(kTokens * s.hidden);
    y = DeviceBuffer(x.bytes());
    counts = DeviceBuffer(s.experts * 8);
    matrix = DeviceBuffer(ranks * counts.bytes());
    integers = DeviceBuffer((4 * pairs + 2 * s.experts + 2 * ranks + 1) * 8);
    place.tokens = static_cast<std::int32_t>(kTokens);
    place.k = s.k;
    place.experts = s.experts;
    place.ranks = place.sources = ranks;
    place.source = rank;
    room = DeviceBuffer(place_room(place) * 4);
    choose(s);
    check_cuda(cudaDeviceSynchronize(), "uploads");
    place.indices = reinterpret_cast<std::int32_t*>(indices.data());
    place.room = reinterpret_cast<std::int32_t*>(room.data());
    place.counts = reinterpret_cast<std::int64_t*>(counts.data());
    place.matrix = reinterpret_cast<std::int64_t*>(matrix.data());
    place.row = reinterpret_cast<std::int64_t*>(integers.data());
    place.unique_of = place.row + pairs;
    place.unique_tokens = place.unique_of + pairs;
    place.rank = reinterpret_cast<std::int32_t*>(place.unique_tokens + pairs);
    place.expert_first = place.unique_tokens + 2 * pairs;
    place.expert_rows = place.expert_first + s.experts;
    place.rank_rows = place.expert_rows + s.experts;
    place.unique_first = place.rank_rows + ranks;
    count_pairs(place, stream.get());
    check_cuda(cudaStreamSynchronize(stream.get()), "counts");
  }

  /// k different experts of a token without preference: a step through all of them.
  void choose(const Shape& s) {
    std::uint64_t state = 0x9e3779b97f4a7c15ULL * (static_cast<std::uint64_t>(device) + 1U);
    for (std::int64_t t = 0; t < kTokens; ++t) {
      const std::size_t first = chosen.size();
      while (chosen.size() < first + static_cast<std::size_t>(s.k)) {
        state = state * 6364136223846793005ULL + 1442695040888963407ULL;
        const auto e = static_cast<std::int32_t>((state >> 33) % static_cast<unsigned>(s.experts));
        const auto own = chosen.begin() + static_cast<std::ptrdiff_t>(first);
        if (std::find(own, chosen.end(), e) == chosen.end()) chosen.push_back(e);
      }
    }
    indices = DeviceBuffer(static_cast<std::int64_t>(chosen.size() * 4));
    indices.upload(std::as_bytes(std::span(chosen)), 0);
  }

  int device;
  CudaStream stream;
  DeviceBuffer x, y, counts, matrix, integers, room, indices, rows;
  DeviceBuffer tokens, source_of;  ///< what came once a rank, and which row each row is filled from
  PlaceParams place;
  std::vector<std::int64_t> rank_rows, unique_first;
  std::vector<std::int32_t> chosen;  ///< as `indices`
};

/// Everything of one GPU is made, used and freed with that GPU current.
template <typename Work>
void on_each(std::vector<std::unique_ptr<Rank>>& ranks, const Work& work) {
  for (auto& rank : ranks) {
    check_cuda(cudaSetDevice(rank->device), "cudaSetDevice");
    work(*rank);
  }
}

/// Streams of ranks do not wait for the default stream, on which copies between two memories of
/// GPUs, and the tail of uploads, are still under way when the call returns.
void settle(std::vector<std::unique_ptr<Rank>>& ranks) {
  on_each(ranks,
          [](Rank&) { check_cuda(cudaDeviceSynchronize(), "copies on the default stream"); });
}

void wait(std::vector<std::unique_ptr<Rank>>& ranks) {
  on_each(ranks, [](Rank& rank) {
    check_cuda(cudaStreamSynchronize(rank.stream.get()), "kernels between GPUs");
  });
}

void read(std::vector<std::int64_t>& to, const std::int64_t* from, std::size_t count) {
  to.resize(count);
  check_cuda(cudaMemcpy(to.data(), from, count * 8, cudaMemcpyDeviceToHost), "download");
}

/// Throws DeviceError that names two GPUs of which one cannot address the other's memory.
void reach(int from, int other) {
  if (from == other) return;
  const cudaError_t code = cudaDeviceEnablePeerAccess(other, 0);
  (void)cudaGetLastError();
  if (code == cudaSuccess || code == cudaErrorPeerAccessAlreadyEnabled) return;
  throw DeviceError("error: GPU " + std::to_string(from) + " cannot address memory of GPU " +
                    std::to_string(other) + ": " + cudaGetErrorString(code));
}

/// Every pair has a row: a wrong count matrix would send rows beyond the memory that is made here.
void require_all_pairs(const Shape& s, const Rank& rank, int count) {
  std::int64_t rows = 0;
  for (const std::int64_t n : rank.rank_rows) rows += n;
  if (rows == count * kTokens * s.k) return;
  throw DeviceError("error: GPU " + std::to_string(rank.device) + " places " +
                    std::to_string(rows) + " rows of " + std::to_string(count * kTokens * s.k));
}

std::vector<std::unique_ptr<Rank>> made_ranks(const Shape& s, int count) {
  std::vector<std::unique_ptr<Rank>> ranks;
  for (int r = 0; r < count; ++r) {
    check_cuda(cudaSetDevice(r), "cudaSetDevice");
    for (int other = 0; other < count; ++other) reach(r, other);
    ranks.push_back(std::make_unique<Rank>(s, r, count));
  }
  on_each(ranks, [&](Rank& rank) {
    for (const auto& source : ranks) {
      check_cuda(cudaMemcpy(rank.matrix.data() + source->device * rank.counts.bytes(),
                            source->counts.data(), static_cast<std::size_t>(rank.counts.bytes()),
                            cudaMemcpyDefault),
                 "counts of a source");
    }
  });
  settle(ranks);
  on_each(ranks, [&](Rank& rank) {
    place_pairs(rank.place, rank.stream.get());
    check_cuda(cudaStreamSynchronize(rank.stream.get()), "places");
    const auto n = static_cast<std::size_t>(count);
    read(rank.rank_rows, rank.place.rank_rows, n);
    read(rank.unique_first, rank.place.unique_first, n + 1);
    require_all_pairs(s, rank, count);
    const std::int64_t own = rank.rank_rows[static_cast<std::size_t>(rank.device)];
    rank.rows = DeviceBuffer(std::max<std::int64_t>(1, own) * s.hidden * 2);
    rank.tokens = DeviceBuffer(count * kTokens * s.hidden * 2);
    rank.source_of = DeviceBuffer(std::max<std::int64_t>(1, own) * 8);
  });
  return ranks;
}

/// Mean of calls back to back on all GPUs at once; the slowest GPU's.
template <typename Launch>
double slowest(std::vector<std::unique_ptr<Rank>>& ranks, const Launch& launch) {
  constexpr int kCalls = 20;
  std::vector<CudaEvent> begin, end;
  for (const bool warm : {true, false}) {
    begin.clear();
    end.clear();
    on_each(ranks, [&](Rank&) {
      begin.push_back(make_event(true));
      end.push_back(make_event(true));
    });
    on_each(ranks, [&](Rank& rank) {
      const auto i = static_cast<std::size_t>(rank.device);
      check_cuda(cudaEventRecord(begin[i].get(), rank.stream.get()), "cudaEventRecord");
      for (int call = 0; call < (warm ? 2 : kCalls); ++call) launch(rank);
      check_cuda(cudaEventRecord(end[i].get(), rank.stream.get()), "cudaEventRecord");
    });
    on_each(ranks, [](Rank& rank) {
      check_cuda(cudaStreamSynchronize(rank.stream.get()), "kernels between GPUs");
    });
  }
  double most = 0;
  on_each(ranks, [&](Rank& rank) {
    const auto i = static_cast<std::size_t>(rank.device);
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin[i].get(), end[i].get()), "cudaEventElapsedTime");
    most = std::max(most, static_cast<double>(ms) * 1e3 / kCalls);
  });
  return most;
}

ScatterParams scatter_of(const Shape& s, const Rank& rank,
                         const std::vector<std::unique_ptr<Rank>>& ranks, bool once) {
  ScatterParams p;
  p.tokens = kTokens;
  p.k = s.k;
  p.once_a_rank = once;
  p.bytes = p.from_stride = s.hidden * 2;
  p.from = rank.x.data();
  p.rank = rank.place.rank;
  p.place = once ? rank.place.unique_of : rank.place.row;
  for (std::size_t r = 0; r < ranks.size(); ++r) {
    p.to[r] = once ? ranks[r]->tokens.data() : ranks[r]->rows.data();
    if (once) p.first[r] = rank.device * kTokens;
    p.source_of[r] = reinterpret_cast<std::int64_t*>(ranks[r]->source_of.data());
  }
  if (!once) return p;
  p.row = rank.place.row;
  p.own = rank.device;
  p.own_rows = rank.rows.data();
  return p;
}

void expand(const Shape& s, const Rank& rank) {
  copy_rows({.rows = rank.rank_rows[static_cast<std::size_t>(rank.device)],
             .bytes = s.hidden * 2,
             .from_at = reinterpret_cast<const std::int64_t*>(rank.source_of.data()),
             .from = rank.tokens.data(),
             .from_stride = s.hidden * 2,
             .to = rank.rows.data(),
             .to_stride = s.hidden * 2},
            rank.stream.get());
}

CombineParams combine_of(const Shape& s, const Rank& rank,
                         const std::vector<std::unique_ptr<Rank>>& ranks) {
  CombineParams p{.sum = {.dtype = DType::bf16,
                          .tokens = kTokens,
                          .k = s.k,
                          .width = s.hidden,
                          .at = rank.place.row,
                          .out = rank.y.data(),
                          .out_stride = s.hidden},
                  .rank = rank.place.rank};
  for (std::size_t r = 0; r < ranks.size(); ++r) p.rows[r] = ranks[r]->rows.data();
  return p;
}

float value_of(std::uint16_t bf16) {
  return std::bit_cast<float>(static_cast<std::uint32_t>(bf16) << 16);
}

/// y = k x, k a power of two: no rounding.
void check_identity(const Shape& s, std::vector<std::unique_ptr<Rank>>& ranks) {
  on_each(ranks, [&](Rank& rank) {
    std::vector<std::uint16_t> x(static_cast<std::size_t>(kTokens * s.hidden)), y(x.size());
    check_cuda(cudaMemcpy(x.data(), rank.x.data(), x.size() * 2, cudaMemcpyDeviceToHost), "x");
    check_cuda(cudaMemcpy(y.data(), rank.y.data(), y.size() * 2, cudaMemcpyDeviceToHost), "y");
    for (std::size_t i = 0; i < x.size(); ++i) {
      if (value_of(y[i]) == static_cast<float>(s.k) * value_of(x[i])) continue;
      throw DeviceError(std::string(s.name) + ": GPU " + std::to_string(rank.device) +
                        ", element " + std::to_string(i) + ": combine of dispatch is not k x");
    }
  });
}

/// What dispatch is to be against NCCL's exchange of every copy and the kernel that packs for it.
constexpr double kGoal = 0.65;

struct Ours {
  double copies_us = 0, once_us = 0, expansion_us = 0;
};

/// Dispatch ends when rows reach their rank, tokens once a rank too: that ratio is the goal's.
void compare_with_nccl(const Shape& s, std::vector<std::unique_ptr<Rank>>& ranks,
                       const Ours& ours) {
  std::vector<NcclSource> sources;
  for (auto& rank : ranks) {
    sources.push_back({rank->device, rank->stream.get(), rank->x.data(), &rank->chosen});
  }
  NcclTimes nccl;
  try {
    nccl = time_nccl(sources, s.experts, s.k, s.hidden * 2);
  } catch (const Unsupported& none) {
    std::printf("%s NCCL: not measured: %s\n", s.name, none.what());
    return;
  }
  const double bytes = static_cast<double>(kTokens * s.k * s.hidden * 2);
  const std::string name(s.name);
  print_time((name + " NCCL, all-to-all-v of k copies").c_str(), nccl.exchange_us,
             bytes * 1e-3 / nccl.exchange_us, "GB/s", "");
  print_time((name + " NCCL, permute before it").c_str(), nccl.permute_us,
             bytes * 1e-3 / nccl.permute_us, "GB/s", "");
  const double theirs = nccl.exchange_us + nccl.permute_us;
  const auto say = [&](const char* what, double us) {
    std::printf("%s %s over NCCL with its permute: %.0f / %.0f us = %.3f\n", s.name, what, us,
                theirs, us / theirs);
  };
  say("k copies", ours.copies_us);
  say("once a rank and expanded", ours.once_us + ours.expansion_us);
  say("once a rank", ours.once_us);
  std::printf("%s goal, at most %.2f of NCCL: %s\n", s.name, kGoal,
              ours.once_us <= kGoal * theirs ? "met" : "MISSED");
}

void time_shape(const Shape& s, int count) {
  auto ranks = made_ranks(s, count);
  const double row = static_cast<double>(s.hidden * 2);
  double copies = 0, unique = 0;  // rows that leave a GPU, of the mean GPU
  on_each(ranks, [&](Rank& rank) {
    unique += static_cast<double>(rank.unique_first.back()) / count;
    copies += static_cast<double>(kTokens * s.k) / count;
  });
  const auto say = [&](const std::string& what, double us, double rows) {
    print_time((std::string(s.name) + " " + what).c_str(), us, rows * row * 1e-3 / us, "GB/s", "");
    return us;
  };
  Ours ours;
  for (const int blocks : {0, 24 * 16, 16 * 16}) {
    const std::string on = blocks == 0 ? "" : ", " + std::to_string(blocks) + " blocks";
    const double us =
        say("dispatch, k copies" + on,
            slowest(ranks,
                    [&](Rank& rank) {
                      scatter(scatter_of(s, rank, ranks, false), blocks, rank.stream.get());
                    }),
            copies);
    if (blocks == 0) ours.copies_us = us;
    say("combine" + on,
        slowest(
            ranks,
            [&](Rank& rank) { combine(combine_of(s, rank, ranks), blocks, rank.stream.get()); }),
        copies);
    if (blocks == 0) check_identity(s, ranks);
  }
  for (const int blocks : {0, 24 * 16, 16 * 16}) {
    const std::string on = blocks == 0 ? "" : ", " + std::to_string(blocks) + " blocks";
    const double us =
        say("dispatch, once a rank" + on,
            slowest(ranks,
                    [&](Rank& rank) {
                      scatter(scatter_of(s, rank, ranks, true), blocks, rank.stream.get());
                    }),
            unique);
    if (blocks == 0) ours.once_us = us;
  }
  ours.expansion_us =
      say("expansion of these", slowest(ranks, [&](Rank& rank) { expand(s, rank); }), copies);
  on_each(ranks, [&](Rank& rank) {
    check_cuda(cudaMemsetAsync(rank.rows.data(), 0xff, static_cast<std::size_t>(rank.rows.bytes()),
                               rank.stream.get()),
               "rows");
  });
  wait(ranks);
  on_each(ranks,
          [&](Rank& rank) { scatter(scatter_of(s, rank, ranks, true), 0, rank.stream.get()); });
  wait(ranks);
  on_each(ranks, [&](Rank& rank) { expand(s, rank); });
  wait(ranks);
  on_each(ranks, [&](Rank& rank) { combine(combine_of(s, rank, ranks), 0, rank.stream.get()); });
  wait(ranks);
  check_identity(s, ranks);
  compare_with_nccl(s, ranks, ours);  // at last, since it marks rows of x
}

}  // namespace

void time_peers(int most) {
  int count = 0;
  check_cuda(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  count = std::min(count, most);
  while (256 % count != 0 || 8 % count != 0) --count;
  std::printf("%d GPUs, 4096 tokens each, bf16; rates of rows delivered, own ones too\n", count);
  std::fflush(stdout);
  time_shape({"DeepSeek-V3", 7168, 256, 8}, count);
  time_shape({"Mixtral", 4096, 8, 2}, count);
}

}  // namespace annulus::testing
