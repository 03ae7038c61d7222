#include "tests/moe/kernels/device_ranks.h"

#include "comm/communicator.h"
#include "moe/device_layer.h"
#include "tests/moe/kernels/device_tensor.h"
#include "tests/moe_layer/run_layer.h"

#include <algorithm>
#include <array>
#include <exception>
#include <numeric>
#include <optional>
#include <span>
#include <thread>

namespace annulus::testing {
namespace {

constexpr double kTimeoutS = 30;

std::size_t at(std::int64_t i) { return static_cast<std::size_t>(i); }

/// One rank's part of a case.
struct Part {
  int rank = 0;
  int ranks = 1;
  std::int64_t first = 0, tokens = 0;
  moe::DeviceRows rows{};
};

moe::Routing routing_of(const LayerCase& layer, const Part& part) {
  moe::Routing r{.tokens = part.tokens, .k = layer.config.k, .experts = layer.config.experts};
  const auto begin = at(part.first * r.k), end = at((part.first + part.tokens) * r.k);
  for (std::size_t i = begin; i < end; ++i) {
    r.indices.push_back(layer.routing.indices[i]);
    r.weights.push_back(layer.routing.weights[i]);
  }
  return r;
}

void sum_over(comm::Communicator& world, std::span<std::int64_t> words) {
  std::vector<std::int64_t> all(words.size() * at(world.size()));
  world.all_gather(std::as_bytes(words), std::as_writable_bytes(std::span(all)), "words");
  std::ranges::fill(words, 0);
  for (std::size_t i = 0; i < all.size(); ++i) words[i % words.size()] += all[i];
}

moe::TokenFacts facts_of(const LayerCase& l, const Part& part) {
  moe::TokenFacts facts{.noise_seed = l.noise_seed, .first_token = part.first};
  if (l.loss_set.empty()) return facts;
  const auto first = l.loss_set.begin() + part.first;
  facts.sequence_of.assign(first, first + part.tokens);
  return facts;
}

/// Over host memory, by the communicators' own transport.
class HostCarrier final : public moe::RowCarrier {
 public:
  HostCarrier(comm::Communicator& communicator, const moe::Device& device, int me)
      : communicator_(communicator), device_(device), me_(me) {}

  void exchange(const char* phase, std::span<const moe::RowMessage> messages,
                void* stream) override {
    device_.wait(stream);
    moe::Flights flights(communicator_, 99U);
    flights.begin(phase, 0);
    std::vector<std::vector<std::byte>> rows;  // on the host
    std::vector<std::int64_t> numbers(2 * at(communicator_.size()));
    for (const moe::RowMessage& m : messages) {
      rows.emplace_back(at(m.bytes));
      if (m.sends) device_.read(rows.back().data(), m.data, m.bytes, stream);
    }
    for (std::size_t i = 0; i < messages.size(); ++i) {
      const moe::RowMessage& m = messages[i];
      const std::int64_t number = numbers[at(2 * m.peer + (m.sends ? 1 : 0))]++;
      if (m.peer == me_) {
        own_[m.sends ? 1 : 0].push_back(i);
      } else if (m.sends) {
        flights.send(m.peer, moe::Cargo::rows, number, rows[i].data(), m.bytes);
      } else {
        flights.receive(m.peer, moe::Cargo::rows, number, rows[i].data(), m.bytes);
      }
    }
    flights.wait();
    for (std::size_t i = 0; i < own_[0].size(); ++i) rows[own_[0][i]] = rows[own_[1][i]];
    own_[0].clear();
    own_[1].clear();
    for (std::size_t i = 0; i < messages.size(); ++i) {
      if (!messages[i].sends)
        device_.write(messages[i].data, rows[i].data(), messages[i].bytes, stream);
    }
  }

 private:
  comm::Communicator& communicator_;
  const moe::Device& device_;
  int me_;
  std::vector<std::size_t> own_[2];  ///< messages to itself: received, sent
};

LayerResult run_rank(const LayerCase& l, const Part& part, const moe::Device& device,
                     comm::Communicator& world, moe::DevicePeers* peers, bool interleaved,
                     std::vector<std::int32_t>& indices, std::int64_t& rounds,
                     std::int64_t& backward_flops) {
  const moe::LayerConfig& c = l.config;
  const bool gated = c.activation == moe::Activation::swiglu;
  const std::int64_t local = c.experts / part.ranks, routers = c.router ? c.experts : 0;
  moe::DeviceLayer on(c, part.rows, device, peers);
  on.set_sum_over_ranks([&](std::span<std::int64_t> words) { sum_over(world, words); });
  const auto rows = [&] { return DeviceTensor(device, c.dtype, {part.tokens, c.hidden}); };
  DeviceTensor x = rows(), y = rows(), dy = rows(), dx = rows(), other = rows();
  x.fill(l.x.data() + part.first * c.hidden);
  dy.fill(l.dy.data() + part.first * c.hidden);
  DeviceSet experts(device, c.dtype, local, c.ffn, c.hidden);
  DeviceSet shared(device, c.dtype, 1, c.shared_ffn, c.hidden);
  experts.fill(l.experts, part.rank * local * c.ffn * c.hidden);
  if (c.shared_ffn > 0) shared.fill(l.shared, 0);
  DeviceTensor router(device, c.dtype, {routers, c.hidden});
  router.fill(l.router.data());
  DeviceTensor bias(device, DType::f32, {static_cast<std::int64_t>(l.bias.size())});
  bias.fill(Values(l.bias.begin(), l.bias.end()).data());
  DeviceSet dexperts(device, DType::f32, local, c.ffn, c.hidden);
  DeviceSet dshared(device, DType::f32, 1, c.shared_ffn, c.hidden);
  DeviceTensor drouter(device, DType::f32, {routers, c.hidden});
  DeviceTensor dweights(device, DType::f32, {part.tokens, c.k});
  const moe::LayerWeights weights{.experts = experts.weights(),
                                  .shared = shared.weights(),
                                  .router = router.view(),
                                  .bias = {bias.floats(), l.bias.size()}};
  const moe::LayerGradients gradients{.experts = dexperts.gradients(),
                                      .shared = dshared.gradients(),
                                      .router = drouter.view(),
                                      .assign = true};
  const moe::Routing given = c.router ? moe::Routing{} : routing_of(l, part);
  const moe::Routing* routing = c.router ? nullptr : &given;
  moe::DeviceStep step = on.make_step(), between = on.make_step();
  step.facts = between.facts = facts_of(l, part);
  between.facts.noise_seed = 17;
  for (int call = 0; call < 2; ++call) {
    on.forward(x.view(), weights, y.view(), step, routing);
    if (interleaved) on.forward(dy.view(), weights, other.view(), between, routing);
    backward_flops = 0;
    on.set_context(device.context.stream, &backward_flops);
    on.backward(dy.view(), x.view(), weights, dx.view(), gradients, step, dweights.floats());
    on.set_context(device.context.stream, nullptr);
  }
  rounds = step.rounds;
  indices.resize(at(part.tokens * c.k));
  device.read(indices.data(), step.indices, part.tokens * c.k * 4, nullptr);
  LayerResult result{y.values(),
                     dx.values(),
                     dexperts.values(gated),
                     c.shared_ffn > 0 ? dshared.values(gated) : OracleExperts{},
                     drouter.values(),
                     dweights.values()};
  if (step.losses != nullptr) {
    std::array<double, 2> losses{};
    device.read(losses.data(), step.losses, 16, nullptr);
    result.balance_loss = losses[0];
    result.z_loss = losses[1];
  }
  if (peers != nullptr) peers->meet("end");  // nobody loads from this rank any more
  return result;
}

void append(Values& to, const Values& part) { to.insert(to.end(), part.begin(), part.end()); }

void add(Values& to, const Values& part) {
  to.resize(part.size());
  for (std::size_t i = 0; i < part.size(); ++i) to[i] += part[i];
}

LayerResult joined(const std::vector<LayerResult>& parts) {
  LayerResult all;
  for (const LayerResult& p : parts) {
    append(all.y, p.y);
    append(all.dx, p.dx);
    append(all.dweights, p.dweights);
    append(all.experts.gate, p.experts.gate);
    append(all.experts.up, p.experts.up);
    append(all.experts.down, p.experts.down);
    add(all.shared.gate, p.shared.gate);
    add(all.shared.up, p.shared.up);
    add(all.shared.down, p.shared.down);
    add(all.router, p.router);
    all.balance_loss += p.balance_loss;
    all.z_loss += p.z_loss;
  }
  return all;
}

}  // namespace

LayerResult run_on_devices(const LayerCase& l, const DeviceRanks& run,
                           std::vector<std::int32_t>* indices) {
  const auto sizes = split_tokens(l.tokens, run.ranks, run.empty_rank);
  const moe::DeviceRows rows{.max_tokens = std::ranges::max(sizes) + run.more_tokens,
                             .capacity = run.capacity,
                             .once_a_rank = run.once_a_rank,
                             .recompute = run.recompute};
  auto communicators = comm::make_local_communicators(run.ranks, kTimeoutS);
  std::vector<moe::Device> devices;
  std::vector<std::shared_ptr<void>> memory;
  std::vector<std::byte*> regions;
  for (int r = 0; r < run.ranks; ++r) {
    use_device(r, run.ranks);
    devices.push_back(test_device());
    memory.push_back(
        devices.back().allocate(moe::DeviceLayer::region_bytes(l.config, rows, run.ranks)));
    regions.push_back(static_cast<std::byte*>(memory.back().get()));
  }
  std::vector<LayerResult> parts(at(run.ranks));
  std::vector<std::vector<std::int32_t>> chosen(at(run.ranks));
  std::vector<std::int64_t> rounds(at(run.ranks), 1), flops(at(run.ranks));
  std::vector<std::exception_ptr> errors(at(run.ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < run.ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        use_device(r, run.ranks);
        const Part part{r, run.ranks,
                        std::accumulate(sizes.begin(), sizes.begin() + r, std::int64_t{0}),
                        sizes[at(r)], rows};
        std::optional<moe::DevicePeers> peers;
        HostCarrier carrier(*communicators[at(r)], devices[at(r)], r);
        const moe::Group group{.first = 0, .ranks = run.ranks, .me = r};
        if (run.ranks > 1 && run.in_messages) {
          peers.emplace(*communicators[at(r)], group, 77U, carrier);
        } else if (run.ranks > 1) {
          peers.emplace(*communicators[at(r)], group, 77U, regions);
        }
        parts[at(r)] =
            run_rank(l, part, devices[at(r)], *communicators[at(r)], peers ? &*peers : nullptr,
                     run.interleaved, chosen[at(r)], rounds[at(r)], flops[at(r)]);
      } catch (...) {
        errors[at(r)] = std::current_exception();
        communicators[at(r)]->abort();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
  if (run.backward_flops != nullptr) {
    *run.backward_flops = std::accumulate(flops.begin(), flops.end(), std::int64_t{0});
  }
  if (run.most_rounds != nullptr) *run.most_rounds = std::ranges::max(rounds);
  if (indices != nullptr) {
    for (const auto& c : chosen) indices->insert(indices->end(), c.begin(), c.end());
  }
  return joined(parts);
}

}  // namespace annulus::testing
