#include "comm/mesh.h"
#include "comm/peer/symmetric_memory.h"
#include "moe/device_layer.h"
#include "runtime/base/clock.h"
#include "runtime/base/cuda_check.h"
#include "runtime/engine/device_pass.h"
#include "runtime/engine/moe/layer_impl.h"
#include "runtime/engine/moe/nccl_carrier.h"

#include <annulus/device_memory.h>
#include <annulus/error.h>

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>

namespace annulus::moe {
namespace {

/// One rank on a GPU. Ranks of an expert group store rows into each other's memory.
class GpuLayer final : public Layer::Impl {
 public:
  GpuLayer(Mesh& on, const engine::LayerShape& of, std::uint32_t hash, int device)
      : Impl(on, of), hash_(hash), device_(device), used_before_(device_memory_used(device)) {
    const DeviceScope scope(device_);
    functions_ = gpu_device(nullptr);
    if (shape.group.ranks > 1) driver_ = comm::peer::Driver::load();
    if (shape.group.ranks == 1) make_layer(nullptr);
  }
  ~GpuLayer() override {
    try {
      const DeviceScope scope(device_);
      (void)cudaDeviceSynchronize();  // what is enqueued reads what is freed now
    } catch (const std::exception&) {
      // No GPU is left to wait for.
    }
  }

  void connect() override;

  std::unique_ptr<Step::Impl> make_step() const override;
  void synchronize(Stream stream) const override;
  std::int64_t bytes() const override { return layer_->bytes() + (memory_ ? memory_->bytes() : 0); }
  std::string kernel_used() const override { return std::string(functions_.kernel->name); }
  void update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                   Stream stream) const override;
  std::string transport() const override {
    if (shape.group.ranks == 1) return mesh->transport();
    return carrier_ ? "nccl" : "peer";
  }
  int device() const override { return device_; }
  std::int64_t device_bytes() const override { return device_memory_used(device_) - used_before_; }

 protected:
  void run(const ForwardCall& call, Step::Impl& step) override;
  void run(const BackwardCall& call, Step::Impl& step) override;
  std::string present() const override {
    return peers_ ? peers_->flights().present() : std::string("moe on a GPU");
  }
  void require_more(const ForwardCall& call) const override;

 private:
  void make_layer(DevicePeers* peers) {
    layer_.emplace(shape.config, rows(), functions_, peers);
    layer_->set_sum_over_ranks([this](std::span<std::int64_t> words) { sum_over_ranks(words); });
  }
  DeviceRows rows() const {
    return {.max_tokens = shape.options.max_tokens,
            .capacity = shape.options.capacity_factor == 0.0 ? 0 : shape.capacity,
            .once_a_rank = shape.dedup,
            .recompute = shape.options.recompute};
  }
  template <typename Fn>
  void each_count(const DeviceStep& step, Fn fn) const;
  std::int64_t rows_between(const DeviceStep& step) const;
  void fill_load(const DeviceStep& step, LayerLoad& load) const;
  double exposed() const {
    return (peers_ ? peers_->flights().exposed_s() : 0.0) + (carrier_ ? carrier_->waited_s() : 0.0);
  }
  void clear_exposed() {
    if (peers_) peers_->flights().clear_exposed();
    if (carrier_) carrier_->clear_waited();
  }
  std::string reach();
  void connect_by_nccl(const std::string& reason);

  std::uint32_t hash_;
  int device_;
  std::int64_t used_before_;
  Device functions_;
  comm::peer::Driver driver_;
  std::unique_ptr<comm::peer::SymmetricMemory> memory_;
  std::unique_ptr<NcclCarrier> carrier_;
  std::optional<DevicePeers> peers_;
  std::optional<DeviceLayer> layer_;
};

/// Makes memory that the ranks of an expert group address; empty, or what one of the mesh's ranks
/// cannot: the same answer, empty or not, on each.
std::string GpuLayer::reach() {
  comm::Communicator& communicator = *mesh->impl().communicator;
  const std::int64_t bytes = DeviceLayer::region_bytes(shape.config, rows(), shape.group.ranks);
  memory_ = std::make_unique<comm::peer::SymmetricMemory>(communicator, driver_,
                                                          communicator.host(), device_, bytes);
  std::string why;
  for (int r = 0; r < shape.group.ranks && why.empty(); ++r) {
    const int other = shape.group.world_rank(r);
    if (memory_->of(other) != nullptr) continue;
    why =
        fmt::format("GPU memory of rank {} cannot be addressed by rank {} of its expert group: {}",
                    other, mesh->rank(), memory_->why_not(other));
  }
  std::array<std::int64_t, 1> far{why.empty() ? 0 : 1};
  sum_over_ranks(far);
  if (far[0] > 0 && why.empty()) why = "ranks of another expert group are on several hosts";
  return why;
}

void GpuLayer::connect_by_nccl(const std::string& reason) {
  if (const std::string why_not = comm::nccl::why_not(); !why_not.empty()) {
    throw Unsupported(fmt::format("moe layer: {}; {}", reason, why_not));
  }
  comm::Communicator& communicator = *mesh->impl().communicator;
  carrier_ = std::make_unique<NcclCarrier>(communicator, shape.group, device_);
  peers_.emplace(communicator, shape.group, hash_, *carrier_);
}

void GpuLayer::connect() {
  const Group& group = shape.group;
  if (group.ranks == 1) return;
  const DeviceScope scope(device_);
  const std::string& wanted = shape.options.transport;
  const std::string why = wanted == "nccl" ? std::string("transport nccl was asked for") : reach();
  if (why.empty()) {
    std::vector<std::byte*> regions;
    for (int r = 0; r < group.ranks; ++r) regions.push_back(memory_->of(group.world_rank(r)));
    peers_.emplace(*mesh->impl().communicator, group, hash_, std::move(regions));
  } else if (wanted == "peer") {
    throw Unsupported("moe layer: " + why);
  } else {
    memory_.reset();
    connect_by_nccl(why);
  }
  make_layer(&*peers_);
}

std::unique_ptr<Step::Impl> GpuLayer::make_step() const {
  const DeviceScope scope(device_);
  auto step = std::make_unique<Step::Impl>();
  step->device = layer_->make_step();
  step->read = [device = device_, read = functions_.read](Step::Impl& of) {
    const DeviceScope on(device);
    check_cuda(cudaDeviceSynchronize(), "MoE forward");
    const auto bytes = static_cast<std::int64_t>(of.kept.indices.size() * 4);
    if (bytes > 0) {
      read(of.kept.indices.data(), of.device->indices, bytes, nullptr);
      read(of.kept.weights.data(), of.device->weights, bytes, nullptr);
      read(of.selected.indices.data(), of.device->selected, bytes, nullptr);
      read(of.selected.weights.data(), of.device->selected_weights, bytes, nullptr);
    }
    if (of.routed && of.device->losses != nullptr) {
      std::array<double, 2> losses{};
      read(losses.data(), of.device->losses, 16, nullptr);
      of.balance_loss = losses[0];
      of.z_loss = losses[1];
    }
    of.is_read = true;
  };
  return step;
}

void GpuLayer::synchronize(Stream stream) const {
  const DeviceScope scope(device_);
  functions_.wait(stream);
}

void GpuLayer::update_bias(std::span<const std::int64_t> counts, float step, std::span<float> bias,
                           Stream stream) const {
  const DeviceScope scope(device_);
  layer_->update_bias(counts, step, bias.data(), stream);
}

void GpuLayer::require_more(const ForwardCall& call) const {
  if (call.given != nullptr || call.weights.router.dtype == shape.config.dtype) return;
  throw Unsupported(fmt::format(
      "rank {}: moe layer: router weights in {} beside a layer in {} are not built for back end "
      "cuda; built: the layer's dtype",
      mesh->rank(), name_of(call.weights.router.dtype), name_of(shape.config.dtype)));
}

/// Calls fn(source, expert, its rank, pairs) for what every rank sends to every expert.
template <typename Fn>
void GpuLayer::each_count(const DeviceStep& step, Fn fn) const {
  const std::int64_t experts = shape.config.experts;
  for (int source = 0; source < shape.group.ranks; ++source) {
    const std::int64_t* counts = step.counts.data() + source * step.counts_width;
    for (std::int64_t e = 0; e < experts; ++e) fn(source, e, e / shape.local_experts(), counts[e]);
  }
}

/// What leaves this rank: tokens (or pairs) for experts elsewhere, and results of pairs from there.
std::int64_t GpuLayer::rows_between(const DeviceStep& step) const {
  const int me = shape.group.me;
  std::int64_t out = 0, back = 0;
  each_count(step, [&](int source, std::int64_t, std::int64_t rank, std::int64_t pairs) {
    if (source == me && rank != me) out += pairs;
    if (source != me && rank == me) back += pairs;
  });
  if (!step.sent_tokens) return out + back;
  const std::int64_t* tokens =
      step.counts.data() + me * step.counts_width + shape.config.experts + 2;
  for (int rank = 0; rank < shape.group.ranks; ++rank) back += rank == me ? 0 : tokens[rank];
  return back;
}

void GpuLayer::fill_load(const DeviceStep& step, LayerLoad& load) const {
  load.expert_rows.assign(static_cast<std::size_t>(shape.config.experts), 0);
  load.rank_rows.assign(static_cast<std::size_t>(shape.group.ranks), 0);
  each_count(step, [&](int, std::int64_t expert, std::int64_t rank, std::int64_t pairs) {
    load.expert_rows[static_cast<std::size_t>(expert)] += pairs;
    load.rank_rows[static_cast<std::size_t>(rank)] += pairs;
  });
  load.experts = load_of(load.expert_rows);
  load.rank_max_over_mean = load_of(load.rank_rows).max_over_mean;
  load.dropped = step.dropped;
  load.bad_tokens = step.bad_tokens;
  load.rounds = step.rounds;
  load.sent_tokens = step.sent_tokens;
}

void GpuLayer::run(const ForwardCall& call, Step::Impl& step) {
  const Deadline clock(1.0);
  const DeviceScope scope(device_);
  clear_exposed();
  step.load.forward_flops = 0;
  layer_->set_context(call.stream, &step.load.forward_flops);
  step.device->facts = step.facts;
  step.balance_loss = step.z_loss = 0.0;
  layer_->forward(call.x, call.weights, call.y, *step.device, call.given);
  step.routed = step.device->routed;
  step.is_read = false;
  const auto pairs = static_cast<std::size_t>(call.x.shape[0] * shape.config.k);
  for (Routing* routing : {&step.selected, &step.kept}) {
    routing->tokens = call.x.shape[0];
    routing->k = shape.config.k;
    routing->experts = shape.config.experts;
    routing->indices.resize(pairs);
    routing->weights.resize(pairs);
  }
  fill_load(*step.device, step.load);
  step.load.forward_bytes_sent = rows_between(*step.device) * shape.row_bytes();
  step.load.forward_exposed_s = exposed();
  step.load.forward_s = clock.elapsed_s();
}

void GpuLayer::run(const BackwardCall& call, Step::Impl& step) {
  const Deadline clock(1.0);
  const DeviceScope scope(device_);
  clear_exposed();
  step.load.backward_flops = 0;
  layer_->set_context(call.stream, &step.load.backward_flops);
  layer_->backward(call.dy, call.x, call.weights, call.dx, call.gradients, *step.device,
                   call.dweights.empty() ? nullptr : call.dweights.data());
  step.load.backward_bytes_sent = rows_between(*step.device) * shape.row_bytes();
  step.load.backward_exposed_s = exposed();
  step.load.backward_s = clock.elapsed_s();
}

}  // namespace

namespace engine {

std::unique_ptr<Layer::Impl> make_gpu_layer(Mesh& mesh, const LayerShape& shape, std::uint32_t hash,
                                            int local_rank) {
  SessionOptions options;
  options.device = shape.options.device;
  if (options.device < 0) options.device = mesh.impl().communicator->device();
  return std::make_unique<GpuLayer>(mesh, shape, hash,
                                    annulus::engine::choose_device(options, local_rank));
}

}  // namespace engine
}  // namespace annulus::moe
