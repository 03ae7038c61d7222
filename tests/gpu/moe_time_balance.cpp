// Times of what a router has beside its weights: losses, capacity, noise. 4096 tokens, one GPU.
#include "moe/kernels/cuda/launch_balance.h"
#include "runtime/base/cuda_handles.h"
#include "tests/gpu/moe_times.h"

#include <annulus/moe.h>

#include <random>
#include <string>
#include <vector>

namespace annulus::testing {

namespace {

using namespace moe::cuda;  // NOLINT
using moe::RouterConfig;

void clear(const DeviceBuffer& buffer) {
  check_cuda(cudaMemset(buffer.data(), 0, static_cast<std::size_t>(buffer.bytes())), "cudaMemset");
  check_cuda(cudaDeviceSynchronize(), "cudaMemset");
}

struct Logits {
  explicit Logits(const RouterConfig& config)
      : values(kTokens * config.experts * 4), params(route_params(config)) {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    std::vector<float> z(static_cast<std::size_t>(kTokens * config.experts));
    for (float& x : z) x = normal(generator);
    values.upload(std::as_bytes(std::span(z)), 0);
    params.tokens = kTokens;
    params.logits = data_of<float>(values);
  }
  DeviceBuffer values;
  RouteParams params;
};

void time_losses(const std::string& name, const Logits& logits, cudaStream_t stream) {
  const DeviceBuffer counts((logits.params.experts + 1) * 8), terms(2 * kTokens * 8), sums(16),
      dlogits(logits.values.bytes());
  clear(counts);
  clear(dlogits);
  LossParams p{.route = logits.params};
  p.counts = data_of<std::int64_t>(counts);
  double us = microseconds(stream, 20, [&] { count_losses(p, stream); });
  print_time((name + " counts of losses").c_str(), us, 0, "", "8 us");
  p.alpha = 1e-3;
  p.beta = 1e-3;
  p.terms = data_of<double>(terms);
  p.sums = data_of<double>(sums);
  us = microseconds(stream, 20, [&] { add_losses(p, stream); });
  print_time((name + " losses").c_str(), us, 0, "", "12 us");
  p.terms = p.sums = nullptr;
  p.dlogits = data_of<float>(dlogits);
  us = microseconds(stream, 20, [&] { add_losses(p, stream); });
  print_time((name + " gradients of losses").c_str(), us, 0, "", "12 us");
}

void time_drops(const std::string& name, const Logits& logits, cudaStream_t stream) {
  const std::int64_t pairs = kTokens * logits.params.k, experts = logits.params.experts;
  const DeviceBuffer indices(pairs * 4), weights(pairs * 4), kept(pairs * 4),
      kept_weights(pairs * 4), room(experts * kTokens * 4), dropped(8);
  RouteParams route_to = logits.params;
  route_to.indices = data_of<std::int32_t>(indices);
  route_to.weights = data_of<float>(weights);
  route(route_to, stream);
  DropParams p{.tokens = kTokens,
               .k = logits.params.k,
               .experts = logits.params.experts,
               .most = pairs / experts,
               .policy = moe::DropPolicy::probability,
               .indices = route_to.indices,
               .weights = route_to.weights,
               .kept = data_of<std::int32_t>(kept),
               .kept_weights = data_of<float>(kept_weights),
               .room = data_of<std::int32_t>(room),
               .dropped = data_of<std::int64_t>(dropped)};
  double us = microseconds(stream, 20, [&] { drop_pairs(p, stream); });
  print_time((name + " capacity 1.0 by probability").c_str(), us, 0, "", "35 us");
  p.policy = moe::DropPolicy::position;
  us = microseconds(stream, 20, [&] { drop_pairs(p, stream); });
  print_time((name + " capacity 1.0 by position").c_str(), us, 0, "", "25 us");
}

void time_noise(std::int64_t hidden, cudaStream_t stream) {
  const DeviceBuffer x = random_bf16(kTokens * hidden), noisy(x.bytes());
  const JitterParams p{.dtype = DType::bf16,
                       .tokens = kTokens,
                       .hidden = hidden,
                       .amount = 0.01F,
                       .seed = 3,
                       .from = x.data(),
                       .from_stride = hidden,
                       .to = noisy.data()};
  const double us = microseconds(stream, 5, [&] { jitter(p, stream); });
  print_time("noise on 4096 x 7168", us, static_cast<double>(2 * x.bytes()) * 1e-6 / us, "TB/s",
             "100 us");
}

}  // namespace

void time_balance() {
  const CudaStream own = make_stream();
  const Logits v3(RouterConfig::deepseek_v3()), mixtral(RouterConfig::mixtral());
  for (const auto& [name, logits] :
       {std::pair<std::string, const Logits*>{"DeepSeek-V3", &v3}, {"Mixtral", &mixtral}}) {
    time_losses(name, *logits, own.get());
    time_drops(name, *logits, own.get());
  }
  time_noise(7168, own.get());
}

}  // namespace annulus::testing
