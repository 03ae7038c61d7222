// Times at the sizes of DeepSeek-V3 and Mixtral, 4096 tokens, one GPU. Rows "to 8 ranks" go to
// eight places of this GPU's memory: what the kernels can do where no link limits them.
#include "tests/gpu/moe_times.h"

#include "moe/kernels/cuda/launch.h"
#include "runtime/base/cuda_handles.h"
#include "runtime/base/device_buffer.h"

#include <annulus/error.h>
#include <annulus/moe.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

namespace annulus::testing {

namespace {

using namespace moe::cuda;  // NOLINT
using moe::RouterConfig;

template <typename T>
DeviceBuffer uploaded(const std::vector<T>& values) {
  DeviceBuffer buffer(static_cast<std::int64_t>(values.size() * sizeof(T)));
  buffer.upload(std::as_bytes(std::span(values)), 0);
  return buffer;
}

/// Device memory that a shape of the router needs, routed once.
struct Routed {
  Routed(const RouterConfig& config, cudaStream_t stream)
      : logits(kTokens * config.experts * 4),
        indices(kTokens * config.k * 4),
        weights(kTokens * config.k * 4) {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    std::vector<float> z(static_cast<std::size_t>(kTokens * config.experts));
    for (float& x : z) x = normal(generator);
    logits.upload(std::as_bytes(std::span(z)), 0);
    params = route_params(config);
    params.tokens = kTokens;
    params.logits = data_of<float>(logits);
    params.indices = data_of<std::int32_t>(indices);
    params.weights = data_of<float>(weights);
    route(params, stream);
  }
  DeviceBuffer logits, indices, weights;
  RouteParams params;
};

void time_router(const char* what, const RouterConfig& config, const char* predicted,
                 cudaStream_t stream) {
  const Routed routed(config, stream);
  const double us = microseconds(stream, 20, [&] { route(routed.params, stream); });
  print_time(what, us, static_cast<double>(kTokens * config.experts * 4) * 1e-3 / us, "GB/s",
             predicted);
}

/// Placement of a routing over ranks that all have the same counts.
struct Placed {
  Placed(const Routed& routed, std::int32_t ranks, cudaStream_t stream)
      : pairs(kTokens * routed.params.k),
        counts(routed.params.experts * 8),
        matrix(ranks * routed.params.experts * 8),
        rank(pairs * 4),
        row(pairs * 8),
        unique_of(pairs * 8),
        unique_tokens(pairs * 8),
        others((2 * routed.params.experts + 2 * ranks + 1) * 8) {
    params.tokens = static_cast<std::int32_t>(kTokens);
    params.k = routed.params.k;
    params.experts = routed.params.experts;
    params.ranks = params.sources = ranks;
    params.source = ranks / 2;
    room = DeviceBuffer(place_room(params) * 4);
    params.indices = routed.params.indices;
    params.room = data_of<std::int32_t>(room);
    params.counts = data_of<std::int64_t>(counts);
    params.matrix = data_of<std::int64_t>(matrix);
    params.rank = data_of<std::int32_t>(rank);
    params.row = data_of<std::int64_t>(row);
    params.unique_of = data_of<std::int64_t>(unique_of);
    params.unique_tokens = data_of<std::int64_t>(unique_tokens);
    params.expert_first = data_of<std::int64_t>(others);
    params.expert_rows = params.expert_first + params.experts;
    params.rank_rows = params.expert_rows + params.experts;
    params.unique_first = params.rank_rows + ranks;
    count_pairs(params, stream);
    for (std::int32_t s = 0; s < ranks; ++s) {
      check_cuda(cudaMemcpyAsync(matrix.data() + s * counts.bytes(), counts.data(),
                                 static_cast<std::size_t>(counts.bytes()), cudaMemcpyDeviceToDevice,
                                 stream),
                 "counts of a source");
    }
    place_pairs(params, stream);
    check_cuda(cudaStreamSynchronize(stream), "placement");
  }
  std::int64_t pairs;
  DeviceBuffer counts, matrix, rank, row, unique_of, unique_tokens, others, room;
  PlaceParams params;
};

void time_placement(const char* what, const Placed& placed, const char* predicted,
                    cudaStream_t stream) {
  const double counts = microseconds(stream, 20, [&] { count_pairs(placed.params, stream); });
  const double places = microseconds(stream, 20, [&] { place_pairs(placed.params, stream); });
  print_time((std::string(what) + " counts").c_str(), counts, 0, "", "");
  print_time((std::string(what) + " counts + places").c_str(), counts + places, 0, "", predicted);
}

/// Rows out and back. Each rank's memory has the rows of all sources; this source is one of them.
void time_rows(const char* name, const Placed& placed, std::int64_t hidden,
               const char* predicted_out, const char* predicted_back, cudaStream_t stream) {
  const PlaceParams& p = placed.params;
  const std::int64_t bytes = hidden * 2;
  std::vector<std::int64_t> rows(static_cast<std::size_t>(p.ranks));
  check_cuda(cudaMemcpy(rows.data(), p.rank_rows, rows.size() * 8, cudaMemcpyDeviceToHost), "rows");
  const DeviceBuffer x(kTokens * bytes), y(kTokens * bytes);
  std::vector<DeviceBuffer> memory;
  ScatterParams out;
  CombineParams back;
  for (std::size_t r = 0; r < rows.size(); ++r) {
    memory.emplace_back(std::max<std::int64_t>(1, rows[r]) * bytes);
    check_cuda(
        cudaMemsetAsync(memory[r].data(), 0, static_cast<std::size_t>(memory[r].bytes()), stream),
        "rows");
    back.rows[r] = out.to[r] = memory[r].data();
  }
  out.tokens = kTokens;
  out.k = p.k;
  out.bytes = out.from_stride = bytes;
  out.from = x.data();
  out.rank = back.rank = p.rank;
  out.place = p.row;
  back.sum = {.dtype = DType::bf16,
              .tokens = kTokens,
              .k = p.k,
              .width = hidden,
              .at = p.row,
              .out = y.data(),
              .out_stride = hidden};
  const auto text = [&](const char* what) { return std::string(name) + " " + what; };
  const double copies = static_cast<double>(placed.pairs * bytes);
  const auto rate = [](double moved, double us) { return moved * 1e-6 / us; };
  const double token_bytes = static_cast<double>(kTokens * bytes);
  for (const int blocks : {0, 16 * 16}) {
    const double us = microseconds(stream, 5, [&] { scatter(out, blocks, stream); });
    print_time(text(blocks == 0 ? "dispatch, k copies" : "the same, 256 blocks").c_str(), us,
               rate(copies + token_bytes, us), "TB/s", blocks == 0 ? predicted_out : "");
  }
  out.once_a_rank = true;
  out.place = p.unique_of;
  std::int64_t unique = 0;
  check_cuda(cudaMemcpy(&unique, p.unique_first + p.ranks, 8, cudaMemcpyDeviceToHost), "rows");
  double us = microseconds(stream, 5, [&] { scatter(out, 0, stream); });
  print_time(text("dispatch, once a rank").c_str(), us,
             rate(static_cast<double>(unique * bytes) + token_bytes, us), "TB/s", "");
  for (const int blocks : {0, 16 * 16}) {
    us = microseconds(stream, 5, [&] { combine(back, blocks, stream); });
    print_time(text(blocks == 0 ? "combine" : "the same, 256 blocks").c_str(), us,
               rate(copies + token_bytes, us), "TB/s", blocks == 0 ? predicted_back : "");
  }
}

void time_gates(cudaStream_t stream) {
  constexpr std::int64_t kRows = 32768, kFfn = 2048;
  const DeviceBuffer hidden(kRows * kFfn * 4), activated(kRows * kFfn * 2), da(kRows * kFfn * 2),
      weights(kRows * 4), dweights(kRows * 4);
  for (const DeviceBuffer* buffer : {&hidden, &da, &weights}) {
    check_cuda(
        cudaMemsetAsync(buffer->data(), 0x3c, static_cast<std::size_t>(buffer->bytes()), stream),
        "gates");
  }
  const moe::ActivateParams p{.activation = moe::Activation::swiglu,
                              .dtype = DType::bf16,
                              .rows = kRows,
                              .ffn = kFfn,
                              .hidden = hidden.data(),
                              .weights = data_of<float>(weights),
                              .activated = activated.data(),
                              .dactivated = da.data(),
                              .dhidden = hidden.data(),
                              .dweights = data_of<float>(dweights)};
  const double size = static_cast<double>(kRows * kFfn);
  double us = microseconds(stream, 3, [&] { activate_rows(p, false, stream); });
  print_time("swiglu 32768 x 2048", us, size * 6 * 1e-6 / us, "TB/s", "110 us");
  us = microseconds(stream, 3, [&] { activate_rows(p, true, stream); });
  print_time("swiglu backward, in place", us, size * 12 * 1e-6 / us, "TB/s", "220 us");
}

}  // namespace

double microseconds(cudaStream_t stream, int calls, const std::function<void()>& fn) {
  const CudaEvent begin = make_event(true);
  const CudaEvent end = make_event(true);
  std::vector<double> times;
  for (int round = -2; round < 11; ++round) {
    check_cuda(cudaEventRecord(begin.get(), stream), "cudaEventRecord");
    for (int i = 0; i < calls; ++i) fn();
    check_cuda(cudaEventRecord(end.get(), stream), "cudaEventRecord");
    check_cuda(cudaEventSynchronize(end.get()), "timed kernels");
    float ms = 0.0F;
    check_cuda(cudaEventElapsedTime(&ms, begin.get(), end.get()), "cudaEventElapsedTime");
    if (round >= 0) times.push_back(static_cast<double>(ms) * 1e3 / calls);
  }
  std::ranges::nth_element(times, times.begin() + 5);
  return times[5];
}

void print_time(const char* what, double us, double amount, const char* unit,
                const char* predicted) {
  std::printf("%-44s %9.1f us", what, us);
  if (amount > 0) std::printf(" %8.2f %-7s", amount, unit);
  if (*predicted != 0) std::printf("  predicted %s", predicted);
  std::printf("\n");
  std::fflush(stdout);
}

void time_moe() {
  const CudaStream own = make_stream();
  const cudaStream_t stream = own.get();
  const RouterConfig v3 = RouterConfig::deepseek_v3(), mixtral = RouterConfig::mixtral();
  std::printf("4096 tokens, bf16 rows; median of 11, calls back to back\n");
  time_router("router DeepSeek-V3, 256 experts", v3, "6 us, goal 15", stream);
  time_router("router Qwen3, 128 experts", RouterConfig::qwen3(), "5 us", stream);
  time_router("router Mixtral, 8 experts", mixtral, "3 us", stream);
  {
    const Routed routed(v3, stream);
    const Placed placed(routed, 8, stream);
    time_placement("placement DeepSeek-V3, 8 ranks", placed, "13 us, goal 25", stream);
    time_rows("DeepSeek-V3", placed, 7168, "130 us", "130 us", stream);
  }
  {
    const Routed routed(mixtral, stream);
    const Placed placed(routed, 8, stream);
    time_placement("placement Mixtral, 8 ranks", placed, "11 us", stream);
    time_rows("Mixtral", placed, 4096, "27 us", "27 us", stream);
  }
  time_gates(stream);
  time_balance();
  try {
    time_products();
    time_layer();
  } catch (const Unsupported& error) {
    std::printf("products: %s\n", error.what());
  }
}

}  // namespace annulus::testing
